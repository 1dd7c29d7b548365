"""The groups of rays that a training step renders."""

SEEN, UNSEEN = "seen", "unseen"
KNOWN = "known"  # through places in the training views whose depth is known
NEIGHBOURS = {SEEN: "seen_near", UNSEEN: "unseen_near"}  # a group -> the group of its rays' neighbours
PATCH = 8  # pixels a side of the unseen patches, where they are drawn as such
