"""Which views are trained on, tested on, and regularised."""

import numpy as np

from infonerf.system.errors import InputError


def choose_views(n_views: int, train_scene: list[int] | None, fewshot: int, fewshot_seed: int,
                 fewshot_choice: str = "random") -> tuple[int, ...]:
    """The few-shot choice: `train_scene` as given, else `fewshot` of the views, else all (docs/method.md, Data).

    fewshot_choice: `random`, drawn by `numpy.random.RandomState(fewshot_seed)`: with seed 0 and 100 views, 4 shots are
    26 86 2 55, the paper's. `even`, from the first to the last at even distances.
    """
    if not train_scene:
        if not 0 <= fewshot <= n_views:
            raise InputError(f"--fewshot {fewshot}: there are {n_views} views to draw from, expected 0..{n_views}")
        if fewshot and fewshot_choice == "even":
            return tuple(int(view) for view in np.linspace(0, n_views - 1, fewshot).round())
        if fewshot:
            drawn = np.random.RandomState(fewshot_seed).choice(n_views, fewshot, replace=False)
            return tuple(int(view) for view in drawn)
        return tuple(range(n_views))
    check_views(train_scene, n_views, "train_scene")
    if fewshot and fewshot != len(train_scene):
        raise InputError(
            f"--fewshot {fewshot} contradicts --train_scene, which names {len(train_scene)} views: "
            f"expected fewshot = {len(train_scene)}, or 0"
        )
    return tuple(train_scene)


def check_views(views: list[int], n_views: int, option: str) -> None:
    """Raise InputError unless all `views` are different and in 0..n_views-1."""
    for view in views:
        if not 0 <= view < n_views:
            raise InputError(f"--{option}: found view {view}, expected 0..{n_views - 1}")
        if views.count(view) > 1:
            raise InputError(f"--{option}: view {view} is named twice, expected every view once")


def unseen_pool(
    n_views: int, train: tuple[int, ...], test: tuple[int, ...], unseen_poses: str
) -> tuple[int, ...]:
    """The views whose poses may be regularised.

    `all` is the released pool: every pose of the data set. `no_test` leaves the test poses out,
    unless nothing but the training poses would be left.
    """
    everything = tuple(range(n_views))
    pool = tuple(view for view in everything if view not in set(test))
    return everything if unseen_poses == "all" or set(pool) <= set(train) else pool
