"""What a user's requests are about: shares of categories, nested in the tree of categories.

Shapes: G users, R targets a user, L events of a history, E entries of an exposure, N levels of the tree (3).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

LEVELS = ("category_1_index", "category_2_index", "category_3_index")


def nested_shares(
    counts: Sequence[torch.Tensor], priors: Sequence[torch.Tensor], total: torch.Tensor, doubts: torch.Tensor
) -> list[torch.Tensor]:
    """Return a category's share of a user's topics at each level of the tree.

    Inside each category the shares of those below it are the posterior mean of a Dirichlet distribution around the shop's
    (MacKay and Peto 1995, "A hierarchical Dirichlet language model"); a category's share is that of the one above it times
    its own inside it:

        share_n = share_(n-1) · (count_n + doubt_n · prior_n / prior_(n-1)) / (count_(n-1) + doubt_n).

    Args:
        counts: of each level, the user's evidence for the category there.
        priors: of each level, the category's share of the shop's topics; 0 of a category that nobody asked for.
        total: the user's evidence in all.
        doubts: of each level, how much evidence the shop's shares are worth [N].
    """
    shares: list[torch.Tensor] = []
    above, prior_above, share = total, torch.ones_like(total), torch.ones_like(total)
    for count, prior, doubt in zip(counts, priors, doubts, strict=True):
        # Of a category that has moved in the tree more may be known than of the one above it.
        count, inside = torch.minimum(count, above), (prior / prior_above.clamp(min=1e-12)).clamp(max=1)
        share = share * (count + doubt * inside) / (above + doubt)
        shares.append(share)
        above, prior_above = count, prior
    return shares


class NextTopic(nn.Module):
    """How likely a user's next request is about the target's category, and those above it in the tree.

    training/topics.py fits the numbers. Until then every share is 0, and in scenarios that answer no request nothing hangs on
    them. beside, which is no part of a saved model: in each scenario how much more, or less, often an item is acted on beside
    what is so near to it in the tree, from unrelated to the same category [scenarios + 1, N + 1]; ones until it is set.
    """

    priors: torch.Tensor
    above: torch.Tensor
    off_topic: torch.Tensor
    beside: torch.Tensor
    event_worth: torch.Tensor
    shown_worth: torch.Tensor
    doubts: torch.Tensor

    def __init__(self, sizes: Sequence[int], scenarios: int, event_memories: int, memories: int) -> None:
        """Know nothing yet of categories of so many ids at each level."""
        super().__init__()
        self.register_buffer("priors", torch.zeros(len(sizes), max(sizes)))  # share of each topic
        self.register_buffer("above", torch.zeros(sizes[-1], len(sizes) - 1, dtype=torch.int32))  # what is above a leaf
        self.register_buffer(
            "off_topic", torch.ones(scenarios + 1, len(sizes))
        )  # ρ, from unrelated to what shares all but the leaf
        self.register_buffer("beside", torch.ones(scenarios + 1, len(sizes) + 1), persistent=False)
        self.register_buffer("event_worth", torch.zeros(event_memories))
        self.register_buffer("shown_worth", torch.zeros(memories))
        self.register_buffer("doubts", torch.ones(len(sizes)))

    def reset(self, tree: np.ndarray) -> None:
        """Forget what was fitted, and learn the tree: categories of all levels [n, N]; of two rows of one leaf the last holds."""
        self.off_topic.fill_(1.0)
        self.priors.zero_()
        above = np.zeros(self.above.shape, np.int32)
        above[tree[:, -1]] = tree[:, :-1]
        self.above.copy_(torch.from_numpy(above))

    def set_priors(self, topics: torch.Tensor) -> None:
        """Count topics [n], third-level categories; each of the tree has half a request more, so that none is impossible."""
        self.priors.zero_()
        leaves = torch.unique(torch.cat([topics, (self.above > 0).any(1).nonzero().squeeze(1)]))
        shares = torch.bincount(topics, minlength=len(self.above))[leaves] + 0.5
        for level, ids in enumerate(self.lineage(leaves).unbind(-1)):
            self.priors[level].index_add_(0, ids.long(), (shares / shares.sum()).to(self.priors.dtype))

    def set_worth(self, logs: torch.Tensor) -> None:
        """Take the fitted logarithms: of event memories, of memories of exposure, of the doubts."""
        events, shown, doubts = logs.exp().split([len(self.event_worth), len(self.shown_worth), len(self.doubts)])
        self.event_worth.copy_(events)
        self.shown_worth.copy_(shown)
        self.doubts.copy_(doubts)

    @property
    def features(self) -> int:
        """Return the number of features that `describe` makes."""
        return 2 * len(self.priors)

    def lineage(self, categories: torch.Tensor) -> torch.Tensor:
        """Return third-level categories [...] behind those above them [..., N]; above a new one is nothing: 0."""
        known = torch.where(categories < len(self.above), categories, 0).long()
        return torch.cat([self.above[known], categories.unsqueeze(-1).int()], dim=-1)

    def prior(self, categories: torch.Tensor) -> list[torch.Tensor]:
        """Return the shop's shares of categories [..., N], level by level."""
        known = torch.where(categories < self.priors.shape[1], categories, 0).long()
        return [of_level[ids] for of_level, ids in zip(self.priors, known.unbind(-1), strict=True)]

    def evidence(
        self, seen: torch.Tensor, memory: torch.Tensor, shown: torch.Tensor, exposure: torch.Tensor
    ) -> torch.Tensor:
        """Return how much is known of each user [G].

        Args:
            seen, memory: third-level categories of the history [G, L], and its memories [G, L, events x memories].
            shown, exposure: third-level categories shown [G, E], and their memories [G, E, memories].
        """
        parts = ((seen, memory @ self.event_worth), (shown, exposure @ self.shown_worth))
        return torch.stack([(worth * (kinds > 0)).sum(-1) for kinds, worth in parts]).sum(0)

    def shares(
        self, categories: torch.Tensor, seen: torch.Tensor, shown: torch.Tensor, evidence: torch.Tensor
    ) -> torch.Tensor:
        """Return the chance that the next request is about target categories, and those above [G, R, N].

        Args:
            categories: with those above [G, R, N].
            seen, shown: sums of the memories that are like them [G, R, N, events x memories] and [G, R, N, memories].
            evidence: of each user [G].
        """
        counts = (seen @ self.event_worth + shown @ self.shown_worth).unbind(-1)
        total = evidence.unsqueeze(-1).expand_as(counts[0])
        return torch.stack(nested_shares(counts, self.prior(categories), total, self.doubts), dim=-1)

    def describe(self, categories: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return what a ranker reads of shares [G, R, N]: these, and how they compare with the shop's [G, R, 2 N]."""
        prior = torch.stack(self.prior(categories), dim=-1)
        lift = torch.where(prior > 0, shares / prior.clamp(min=1e-12), 1.0)
        return torch.cat([shares, torch.log1p(lift)], dim=-1)

    def forward(self, scenario: torch.Tensor, categories: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return how much more, or less, a user's next request makes of targets than their own rates say [G, R].

        Where a request is answered, the expected ρ of training/topics.py. Where an item stands beside another one, as beside what
        lies in the cart, what that will be is not known the night before either: the expected lift, against that for anybody,
        which the target's own rate already has in it.

        Args:
            scenario: broadcasts against [G, R].
            categories: of targets, with those above [G, R, N].
            shares: of these categories [G, R, N].
        """
        answered = functional.pad(self.off_topic[scenario], (0, 1), value=1.0)
        # A category that has moved in the tree may be asked for more often than the one above it is now
        lifts, anybodys = self.beside[scenario], torch.stack(self.prior(categories), dim=-1).cummin(dim=-1).values
        return _expected(answered, shares) * _expected(lifts, shares) / _expected(lifts, anybodys)


def _expected(by_nearness: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return the mean [...] of values by nearness, from unrelated to the same category [..., N + 1].

    That a topic shares level k of the tree has the chance of the category there, `shares` [..., N].
    """
    return by_nearness[..., 0] + (by_nearness.diff(dim=-1) * shares).sum(-1)
