"""Muon: momentum whose matrix update is made orthogonal (Keller Jordan, 2024)."""

import torch


def orthogonal(m, steps=5):
    """The nearest orthogonal matrix, roughly, by a quintic Newton-Schulz iteration in bf16."""
    x = m.to(torch.bfloat16)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.t()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.t()
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.t() if tall else x).float()


class Muon(torch.optim.Optimizer):
    """For the two-dimensional weights inside the layers; `blocks` splits fused ones."""

    def __init__(self, groups, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, blocks=None))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "m" not in state:
                    state["m"] = torch.zeros_like(p)
                state["m"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["m"], group["momentum"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                for u, w in zip(update.split(group["blocks"] or p.shape[0]), p.split(group["blocks"] or p.shape[0])):
                    scale = max(1.0, u.shape[0] / u.shape[1]) ** 0.5
                    w.add_(orthogonal(u), alpha=-group["lr"] * scale)
