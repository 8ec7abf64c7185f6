from lite.errors import LiteError as LiteError
from lite.library.policy import ask as ask
from lite.library.policy import load_policy as load_policy
from lite.library.ppo import PPO as PPO
from lite.library.recipes import run as run

__version__: str
PUBLIC: dict[str, str]
