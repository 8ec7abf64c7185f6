"""The page of lite: ``python app.py`` is ``lite ui``, and takes the same options."""

import sys

from lite.cli import app

if __name__ == "__main__":
    app(args=["ui", *sys.argv[1:]])
