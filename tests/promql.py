"""Which metrics a PromQL expression asks for, without a Prometheus to parse it."""

import re
from collections.abc import Iterator

_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_COMMENT = re.compile(r"#[^\n]*")
_MATCHERS = re.compile(r"\{[^{}]*\}")
_DURATION = re.compile(r"\[[^\[\]]*\]|\b(?:\d+(?:ms|[smhdwy]))+\b")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_VARIABLE = re.compile(r"\$\{?\w+(?::\w+)?\}?")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()(?![a-zA-Z0-9_:])")
_NUMBER = re.compile(r"(?<![\w:])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w:])", re.IGNORECASE)
_WORDS = frozenset(
    {
        "and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right",
        "start", "end", "inf", "nan", "atan2",
    }
)  # fmt: skip
_LABEL_VALUES = re.compile(r"^\s*label_values\((?:(.*),)?\s*\w+\s*\)\s*$", re.DOTALL)
_QUERY_RESULT = re.compile(r"^\s*query_result\((.*)\)\s*$", re.DOTALL)


def metrics(expression: str) -> set[str]:
    """The names of the metrics in an expression, or in a query of a Grafana variable."""
    variable = _LABEL_VALUES.match(expression) or _QUERY_RESULT.match(expression)
    text = expression if variable is None else variable[1] or ""
    return set(_names(text))


def _names(text: str) -> Iterator[str]:
    for what in (_STRING, _COMMENT, _MATCHERS, _DURATION, _VARIABLE, _NUMBER):
        text = what.sub(" ", text)
    text = _LABELS.sub(" ", text)
    for name in _NAME.findall(text):
        if name.lower() not in _WORDS:
            yield name
