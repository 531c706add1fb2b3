"""What the kit holds a vendor plugin to: a function for each check, whose docstring is the promise."""

from collections.abc import Awaitable, Callable

from usercore.testing.checks import messages, privacy, results, specs, starting, trouble
from usercore.testing.stand import Stand

Check = Callable[[Stand], Awaitable[None]]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for module in (specs, starting, results, messages, trouble, privacy)
    for check in module.CHECKS
}
"""By name, in the order in which an author wants to read them."""
