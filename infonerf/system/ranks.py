class Ranks:
    def __init__(self, rank=0, size=1): self.rank, self.size = rank, size
    @classmethod
    def alone(cls): return cls()
    def share(self, n): return [n // self.size + (rank < n % self.size) for rank in range(self.size)]
    def sum_(self, tensors): pass
    def gather_rows(self, part, sizes): return part
