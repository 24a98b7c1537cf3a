"""Encoders, and the run that puts their features into stores."""
