"""Which pictures each batch holds: a function of the seed and the number of the batch, and of nothing else."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil

from training.datasets.buckets import Size
from training.trainer.chance import Purpose, chance

Batch = tuple[int, ...]
"""Places of pictures in the list of all, in the order in which they are shown."""


class Order:
    """Cuts an endless stream of epochs into batches, none of which mixes two buckets.

    In each epoch every picture comes up as often as it is to be repeated. Pictures are walked through in a drawn order; a
    batch is given out as soon as its bucket is full, and what is left at the end makes smaller ones. So with one
    bucket, four batches of one are the same pictures in the same order as one batch of four.
    """

    def __init__(
        self, buckets: Sequence[Size], repeats: Sequence[int], *, seed: int, batch_size: int
    ) -> None:
        """Order pictures, each of which has a bucket and is shown so many times in an epoch."""
        self._buckets = buckets
        self._shown = [place for place, times in enumerate(repeats) for _ in range(times)]
        self._seed = seed
        self._batch_size = batch_size
        self._epoch = -1
        self._batches: list[Batch] = []
        counts = Counter(buckets[place] for place in self._shown)
        self.batches_per_epoch = sum(ceil(count / batch_size) for count in counts.values())

    def epoch_of(self, number: int) -> int:
        """Return in which epoch a batch lies, counted from 0."""
        return number // self.batches_per_epoch

    def batch(self, number: int) -> Batch:
        """Return a batch by its number, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._batches, self._epoch = list(self._cut(epoch)), epoch
        return self._batches[place]

    def _cut(self, epoch: int) -> list[Batch]:
        batches: list[Batch] = []
        waiting: dict[Size, list[int]] = defaultdict(list)
        for index in chance(Purpose.ORDER, self._seed, epoch).permutation(len(self._shown)):
            place = self._shown[index]
            queue = waiting[self._buckets[place]]
            queue.append(place)
            if len(queue) == self._batch_size:
                batches.append(tuple(queue))
                queue.clear()
        return batches + [tuple(rest) for rest in waiting.values() if rest]
