"""Users' regular expressions: Go's syntax and error texts, on RE2. Pure."""

from reconcile.regexp.engine import Regexp
from reconcile.regexp.syntax import RegexpError

__all__ = ["Regexp", "RegexpError"]
