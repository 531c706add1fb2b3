"""Where commands get their settings: the environment, then .dev/env or .env of the checkout."""

import os
from pathlib import Path

from usercore.devstack.environment import checkout
from usercore.settings import Settings, load


def dotenv() -> Path:
    stack = checkout() / ".dev" / "env"
    return stack if stack.exists() else checkout() / ".env"


def current() -> Settings:
    """The effective settings. Raises SettingsError."""
    return load(os.environ, dotenv())
