"""The checker finds what it is there to find."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from promql import Expression, Series  # noqa: E402


def load_check():
    loader = importlib.machinery.SourceFileLoader("check", str(HERE / "check"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
    loader.exec_module(module)
    return module


check = load_check()
SERIES = [
    Series.parse('up{instance="leaf1"}'),
    Series.parse('a_total{port="Ethernet0",reason="x"}'),
    Series.parse('a_total{port="Ethernet0",reason="y"}'),
    Series.parse('b_bucket{le="1"}'),
]


def findings(text):
    found = check.Findings()
    check.check_expression(found, "here", Expression(text), SERIES)
    return [finding.removeprefix("here: ") for finding in found.list]


class Expressions(unittest.TestCase):
    def test_what_exists_is_fine(self):
        for text in [
            'sum by (reason) (rate(a_total{port=~"$port",reason=~"x|y"}[5m]))',
            "up == 0 and on (instance) absent(up offset 5m)",
            "histogram_quantile(0.9, sum by (le) (rate(b_bucket[1h]))) > 1e3",
            'a_total * on (port) group_left (reason) a_total{reason!="x"} + time()',
            'count(a_total{port="any"}) without (port)',
        ]:
            self.assertEqual(findings(text), [], text)

    def test_what_does_not_exist_is_found(self):
        for text, finding in [
            ("rate(c_total[5m])", "there is no metric c_total"),
            ('up{port="Ethernet0"}', "up has no label port"),
            ('a_total{reason="z"}', "reason of a_total is never 'z'"),
            ('a_total{reason=~"x|z"}', "reason of a_total is never 'z'"),
            ("sum by (vrf) (a_total)", "groups or joins by vrf, which no metric in it has"),
            ("sum(a_total) by (vrf)", "groups or joins by vrf, which no metric in it has"),
            ("up * on (vrf) a_total", "groups or joins by vrf, which no metric in it has"),
        ]:
            self.assertEqual(findings(text), [finding], text)

    def test_labels_of_the_result(self):
        for text, labels in [
            ("sum by (a, b) (up)", {"a", "b"}),
            ("60 * sum by (a) (up)", {"a"}),
            ("histogram_quantile(0.9, sum by (le, a) (up))", {"a"}),
            ("rate(up[5m])", None),
        ]:
            self.assertEqual(Expression(text).by, labels, text)

    def test_nonsense_is_no_expression(self):
        with self.assertRaises(ValueError):
            Expression("sum(up) ? 1")


class Scrapes(unittest.TestCase):
    def test_a_series_that_the_list_lacks_is_found(self):
        path = HERE / "testdata/series.txt"
        known = path.read_text().splitlines()
        scrape = pathlib.Path(self.enterContext(check.tempfile.TemporaryDirectory()), "scrape")
        scrape.write_text("".join(f"{line} 1\n" for line in known))
        found = check.Findings()
        check.check_scrape(found, scrape, check.exported())
        self.assertEqual(found.list, [])
        scrape.write_text(scrape.read_text() + "switch_agent_new_total 1\n")
        check.check_scrape(found, scrape, check.exported())
        self.assertEqual(len(found.list), 1)


if __name__ == "__main__":
    unittest.main()
