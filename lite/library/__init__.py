"""What a Python program may use: ``from lite import run, load_policy, PPO``. The names are listed in ``lite/__init__.py``."""
