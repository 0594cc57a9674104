"""From the words of ``yolo-stable train`` to a finished run."""
