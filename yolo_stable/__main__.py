"""Entry point: ``python -m yolo_stable`` is the command ``yolo-stable``."""

from .cli.main import main

if __name__ == "__main__":
    main()
