"""The routes of the explorer: each checks parameters, makes one call and returns its result.

Objects are addressed by the id of a gallery and the number of a row, an image or a column.
"""

from fastapi import APIRouter

from pa.explore.routes import pictures, rows, searches, uploads
from pa.explore.services import Services


def routers(services: Services) -> list[APIRouter]:
    """Return all routes below /api."""
    return [module.router(services) for module in (rows, pictures, searches, uploads)]
