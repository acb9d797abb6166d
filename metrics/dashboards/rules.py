"""Prometheus rule files as values: alerts and recording rules in groups."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from attrs import Factory, field, frozen
from attrs.validators import matches_re, min_len, optional

from metrics.dashboards.promql import metric_names

__all__ = ["AlertRule", "RecordingRule", "RuleGroup", "rules_yaml"]

_duration = matches_re(re.compile(r"(\d+(ms|[smhdwy]))+"))
_name = matches_re(re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*"))


@frozen(kw_only=True)
class AlertRule:
    """Fires when `expr` has had a result for the time `lasting` (`"10m"`).

    `summary` and `description` may use Prometheus' templates (`{{ $labels.location }}`, `{{ $value }}`).
    """

    alert: str = field(validator=_name)
    expr: str = field(validator=min_len(1))
    summary: str = field(validator=min_len(1))
    description: str = field(validator=min_len(1))
    lasting: str | None = field(default=None, validator=optional(_duration))
    labels: Mapping[str, str] = field(default=Factory(dict))

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as Prometheus' YAML has it."""
        rule: dict[str, Any] = {"alert": self.alert, "expr": self.expr}
        if self.lasting is not None:
            rule["for"] = self.lasting
        if self.labels:
            rule["labels"] = dict(self.labels)
        rule["annotations"] = {"summary": self.summary, "description": self.description}
        return rule


@frozen(kw_only=True)
class RecordingRule:
    """Keeps the result of `expr` as the series `record`."""

    record: str = field(validator=_name)
    expr: str = field(validator=min_len(1))
    labels: Mapping[str, str] = field(default=Factory(dict))

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as Prometheus' YAML has it."""
        rule: dict[str, Any] = {"record": self.record, "expr": self.expr}
        if self.labels:
            rule["labels"] = dict(self.labels)
        return rule


@frozen(kw_only=True)
class RuleGroup:
    """Rules that are evaluated together and in order, every `interval` or as the server is configured."""

    name: str = field(validator=min_len(1))
    rules: tuple[AlertRule | RecordingRule, ...] = field(validator=min_len(1))
    interval: str | None = field(default=None, validator=optional(_duration))

    def metric_names(self) -> frozenset[str]:
        """Returns the names of all series that the rules read, without those that they record themselves."""
        read: frozenset[str] = frozenset().union(*(metric_names(rule.expr) for rule in self.rules))
        return read - {rule.record for rule in self.rules if isinstance(rule, RecordingRule)}

    def to_dict(self) -> dict[str, Any]:
        """Returns the group as Prometheus' YAML has it."""
        group: dict[str, Any] = {"name": self.name}
        if self.interval is not None:
            group["interval"] = self.interval
        group["rules"] = [rule.to_dict() for rule in self.rules]
        return group


def rules_yaml(groups: Iterable[RuleGroup], *, comment: str = "") -> str:
    """Returns a rule file for Prometheus, with `comment` at its head."""
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    body = yaml.dump(
        {"groups": [group.to_dict() for group in groups]},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    return head + body


class _Dumper(yaml.SafeDumper):
    """Writes expressions of several lines as blocks, so that people can read them."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
