"""As much of PromQL as is needed to see which metrics and labels an expression names.

promtool judges whether it is valid; it cannot say what is in it.
"""

import re

TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<duration>\[[^\]]*\])
      | (?P<number>\d[\w.]*)
      | (?P<name>[A-Za-z_:][\w:]*)
      | (?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},@])
    """,
    re.VERBOSE,
)
# Words that a list of labels in parentheses follows.
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
WORDS = LISTS | {"and", "or", "unless", "bool", "offset", "inf", "nan"}


class Series:
    """A series as an exposition writes it: `name{label="value",...}`."""

    def __init__(self, name, labels):
        self.name, self.labels = name, labels

    @classmethod
    def parse(cls, text):
        name, _, rest = text.partition("{")
        return cls(name, dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest)))

    def key(self):
        return self.name, frozenset(self.labels)

    def __str__(self):
        return self.name + "{" + ",".join(f'{k}="{v}"' for k, v in self.labels.items()) + "}"

    def values(self):
        """Two hours of values: counters grow by one a minute."""
        return "0+1x120" if re.search(r"_(total|count|sum|bucket)$", self.name) else "1x120"


class Selector:
    def __init__(self, name, matchers):
        # Triples of label, operator and value.
        self.name, self.matchers = name, matchers


class Expression:
    """`selectors`; `grouping`, every label that it aggregates or joins by; `by`, the labels of the result
    where the outermost operation is an aggregation by labels, else None."""

    def __init__(self, text):
        self.selectors, self.grouping = [], set()
        tokens = []
        at = 0
        while at < len(text):
            token = TOKEN.match(text, at)
            if not token:
                raise ValueError(f"cannot read {text[at:]!r} in {text!r}")
            at = token.end()
            if token.lastgroup not in ("space", "duration"):
                tokens.append((token.lastgroup, token.group()))
        self.tokens, self.at = tokens, 0
        lists = []
        while self.at < len(tokens):
            kind, word = tokens[self.at]
            self.at += 1
            if kind == "name" and word in LISTS and self._peek() == "(":
                labels = self._labels()
                self.grouping |= labels
                if word == "by":
                    lists.append(labels)
            elif kind == "name" and word not in WORDS and self._peek() not in {"("} | LISTS:
                self.selectors.append(Selector(word, self._matchers()))
        # The outermost one comes first, and what histogram_quantile makes of it has no `le`.
        outer = re.match(r"\W*(?:\d+ \* )?(histogram_quantile\([\d.]+, )?(\w+) by \(", text)
        self.by = None
        if outer:
            self.by = lists[0] - ({"le"} if outer[1] else set())

    def _peek(self):
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _labels(self):
        labels = set()
        while self.tokens[self.at][1] != ")":
            if self.tokens[self.at][0] == "name":
                labels.add(self.tokens[self.at][1])
            self.at += 1
        self.at += 1
        return labels

    def _matchers(self):
        matchers = []
        if self._peek() != "{":
            return matchers
        self.at += 1
        while self.tokens[self.at][1] != "}":
            if self.tokens[self.at][0] == "name":
                label, operator, value = (token[1] for token in self.tokens[self.at : self.at + 3])
                matchers.append((label, operator, value[1:-1]))
                self.at += 3
            else:
                self.at += 1
        self.at += 1
        return matchers
