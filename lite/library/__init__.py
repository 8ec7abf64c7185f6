"""What a Python program may use: ``from lite import run, load_policy, PPO``. The names are listed in ``lite/__init__.py``.

The environment is prepared before one of them is fetched: the libraries behind them read it as they are imported. The program's own bars
are left alone until it calls one.
"""

from lite.runs.manners import prepare_environment

prepare_environment(offline=False, bars=True)
