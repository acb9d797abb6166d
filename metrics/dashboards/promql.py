"""Just enough understanding of PromQL to say which metrics an expression reads."""

import re

__all__ = ["metric_names"]

_TEXT = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'')
_COMMENT = re.compile(r"#[^\n]*")
_MATCHERS = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_LABEL_LIST = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", re.IGNORECASE)
_NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])")
_WORDS = frozenset(
    {"and", "or", "unless", "atan2", "bool", "offset", "start", "end", "inf", "nan"}
    | {"by", "without", "on", "ignoring", "group_left", "group_right"}
)


def metric_names(expression: str) -> frozenset[str]:
    """Returns the names of all series that a PromQL expression selects by name.

    Written for the expressions one writes for dashboards and rules: a selector by `__name__` matcher is not
    seen.
    """
    text = _TEXT.sub('""', _COMMENT.sub("", expression))
    text = _LABEL_LIST.sub(" ", _MATCHERS.sub(" ", text))
    return frozenset(name for name in _NAME.findall(text) if name.lower() not in _WORDS)
