#!/usr/bin/env python3
"""Numbers that were worked out by hand or are published. `python3 tests/reference/unit.py`"""

from __future__ import annotations

import unittest

from reference.answers import key
from reference.path import Path
from reference.philox import philox4x32_10
from reference.selections import Candidate, select
from reference.significance import holm, interval, stratified_p_value
from reference.stop_rules import bayes_factor, scores_settled, settled
from reference.strategies import dora, particle_filtering, rebase, whole


class Numbers(unittest.TestCase):
    """One table each."""

    def test_philox_gives_the_known_answers(self) -> None:
        """Random123's kat_vectors."""
        ones = 0xFFFFFFFF
        self.assertEqual(
            philox4x32_10((0,) * 4, (0,) * 2), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
        )
        self.assertEqual(
            philox4x32_10((ones,) * 4, (ones,) * 2), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
        )

    def test_p_values(self) -> None:
        """Fisher's 2 / C(6, 3); the sign test's 2 / 2⁵; nothing that differs."""
        self.assertAlmostEqual(stratified_p_value([3], [0], 3, 3), 0.1)
        self.assertAlmostEqual(stratified_p_value([1] * 5, [0] * 5, 1, 1), 0.0625)
        self.assertAlmostEqual(stratified_p_value([1, 0, 1], [1, 0, 1], 1, 1), 1.0)
        for here, there in zip(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]):
            self.assertAlmostEqual(here, there)
        # Differences 1, -1: mean 0, variance 2, half-width 1.96.
        for here, there in zip(interval([1, 0], [0, 1]), (0.0, -1.959964, 1.959964)):
            self.assertAlmostEqual(here, there)

    def test_stop_rules(self) -> None:
        """Half of 2⁵ coins and so on; the integral of Beta(2, 1.3) above ½ is 1.65 · 2^-1.3."""
        for rule, answers, n, expected in [
            ("unbeatable", [1, 1, 1, 2], 5, True),
            ("unbeatable", [1, 1, 1, 2], 6, False),
            ("unbeatable", [None, None], 2, False),
            ("beta", [1, 1, 1], 16, False),
            ("beta", [1, 1, 1, None, 1], 16, True),
        ]:
            self.assertEqual(settled(rule, answers, n), expected, (rule, answers, n))
        p = 1.65 * 2**-1.3
        self.assertAlmostEqual(bayes_factor([1]), 2 * p / (1 - p), places=6)
        for selection, scored, n, expected in [
            ("last-vote", [(1, 0.9), (1, 0.9), (2, 0.5)], 4, True),
            ("last-vote", [(1, 0.9), (1, 0.9), (2, 0.5)], 5, False),
            ("last-vote", [(1, 0.9), (1, 1.1), (2, 0.5)], 4, False),
            ("last-vote", [(1, 0.9), (None, 1.1)], 2, True),
            ("min-max", [(1, 0.99)], 9, False),
            ("min-max", [(1, 0.2), (2, 1.0)], 9, True),
            ("min-max", [(1, 0.2), (None, 1.0)], 9, False),
        ]:
            self.assertEqual(scores_settled(selection, scored, n), expected, (selection, scored, n))

    def test_budgets(self) -> None:
        """⌈3 / 2⌉ first; of equal values the earlier; ties of DORA to even."""
        self.assertEqual(rebase.shares([0.9, 0.9], 3, 0.2), [2, 1])
        self.assertEqual(rebase.shares([0.1, 0.9], 4, 0.01), [0, 4])
        self.assertEqual(rebase.shares([], 4, 0.2), [])
        self.assertEqual(dora.rounded([2.5, 1.5], 4), [2, 2])
        self.assertEqual(dora.rounded([0.5, 3.5], 4), [0, 4])
        self.assertEqual(dora.rounded([1.4, 1.4, 1.2], 4), [2, 1, 1])
        # Two that are alike have ½ each, the third 1.
        gammas = dora.uniqueness([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], 0.01)
        for here, there in zip(gammas, (0.5, 0.5, 1.0)):
            self.assertAlmostEqual(here, there)

    def test_particles(self) -> None:
        """Odds of 1 and 3: a quarter of the draws for the first."""
        first, second = (Path(None, "", 0, value=value) for value in (0.5, 0.75))
        drawn = particle_filtering.resampled([first, second], [0.3, 0.2, 0.9, 0.24])
        self.assertEqual([path is first for path in drawn], [True, True, False, False])

    def test_selections(self) -> None:
        """Of equal votes the larger group, then the earlier; an answer that is missing is none."""
        some = [
            Candidate("1", [0.5]),
            Candidate(None, [0.9]),
            Candidate("2", [0.25]),
            Candidate("2.0", [0.25]),
        ]
        for selection, expected in [("last-vote", 2), ("last-max", 0), ("majority", 2)]:
            self.assertEqual(select(selection, some), expected, selection)
        # Ranks 3, 2, 1: weights 1, √2, √3; 1 + √2 > √3. A solution below the bar has a rank and no vote.
        sure = [Candidate("1", [], {"self_certainty": c, "tail": c}) for c in (0.1, 0.2)]
        sure.append(Candidate("2", [], {"self_certainty": 0.9, "tail": 0.9}))
        for selection, expected in [
            ("self-certainty-vote", 0),
            ("self-certainty-max", 2),
            ("tail-confidence-vote", 2),
        ]:
            self.assertEqual(select(selection, sure), expected, selection)
        sure[0] = Candidate("1", [], {"self_certainty": 0.1, "tail": 0.1}, counts=False)
        self.assertEqual(select("self-certainty-vote", sure), 2)
        self.assertIsNone(select("majority", some[1:2]))
        self.assertEqual(select("last-max", [Candidate("1", [0.5]), Candidate("2", [0.5])]), 0)

    def test_percentile(self) -> None:
        """numpy.percentile([1, 2, 4, 8], 90) is 4 + 0.7 · 4."""
        for percent, expected in [(0, 1), (50, 3), (90, 6.8), (100, 8)]:
            self.assertAlmostEqual(whole.percentile([8, 1, 4, 2], percent), expected)

    def test_answers(self) -> None:
        """Numbers by value."""
        for one, other, expected in [
            ("1,000", "1000.0", True),
            (r"\frac{1}{2}", "0.5", True),
            ("x", "y", False),
        ]:
            self.assertEqual(key(one) == key(other), expected, (one, other))


if __name__ == "__main__":
    unittest.main()
