"""Every error that lite raises on purpose, sorted by who must act.

LiteError
├── RecipeError(ValueError)        the recipe or the command line is wrong: fix the text        exit 2
├── ArtifactError(OSError)         a file is missing, half-written, or from another base       exit 1
├── PreconditionError(OSError)     the machine lacks something: GPU, memory, disk, a model      exit 3
├── DivergedError(RuntimeError)    training ran away, or a gate refused the result              exit 4
├── JudgeError(RuntimeError)       too few judgements could be read                             exit 4
├── LockError(OSError)             another process holds the run: wait for it, or stop it       exit 5
└── StageError(RuntimeError)       a stage failed; wraps the cause and names the stage          exit 1
"""


class LiteError(Exception):
    """Root of the tree. The message says where, what was there, and what to do."""

    exit_code = 1


class RecipeError(LiteError, ValueError):
    """All the problems of one recipe at once, each with its dotted place."""

    exit_code = 2

    def __init__(self, where: str, problems: list[str]):
        self.where, self.problems = where, problems
        super().__init__(f"{where}: {len(problems)} problem(s)\n" + "\n".join(f"  {p}" for p in problems))


class ArtifactError(LiteError, OSError):
    exit_code = 1


class PreconditionError(LiteError, OSError):
    exit_code = 3


class DivergedError(LiteError, RuntimeError):
    exit_code = 4


class JudgeError(LiteError, RuntimeError):
    exit_code = 4


class LockError(LiteError, OSError):
    exit_code = 5


class StageError(LiteError, RuntimeError):
    exit_code = 1


class Stopped(BaseException):
    """Not an error, so no ``except Exception`` takes it for one: the user asked the run to stop, and it can be resumed."""


def extra(name: str) -> str:
    """How an extra of lite's gets installed: from its folder, since no registry has the package."""
    return f"pip install -e '.[{name}]' in lite's folder"
