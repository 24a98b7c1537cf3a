"""The routes of the explorer: parameters in, one call, an answer out.

Everything is asked for by the id of a gallery and the number of a row, an image or a column.
"""

from fastapi import APIRouter

from pa.explore.routes import own, pictures, rows, searches
from pa.explore.services import Services


def routers(services: Services) -> list[APIRouter]:
    """All routes below /api."""
    return [module.router(services) for module in (rows, pictures, searches, own)]
