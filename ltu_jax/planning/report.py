"""A plan as text."""

from ltu_jax.planning.plan import Plan


def report(plan: Plan) -> str:
    """The plan for a reader: verdict first, then memory, work, time, and what to change."""
    lines = [_verdict(plan), "", *_memory(plan), "", *_work(plan), "", *_time(plan)]
    if plan.problem:
        lines += ["", f"compiler: {plan.problem}"]
    if plan.advice:
        lines += ["", "to make it fit, the cheapest first:"]
        lines += [f"  {line}" for line in plan.advice]
    lines += ["", f"estimates, not measurements ({plan.method}); docs/planner.md says how"]
    return "\n".join(lines)


def _verdict(plan: Plan) -> str:
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.layout["mesh"].items())
    batch = plan.batch
    rows = f"{batch['rows']} rows of {batch['pairs_per_row']:.3g} pair(s), {batch['text_length']}"
    return (
        f"{plan.stage} on {plan.slice} ({plan.devices} devices, {plan.hosts} hosts): "
        f"{'FITS' if plan.fits else 'DOES NOT FIT'}\n"
        f"  mesh {mesh}; {rows} text tokens (longest {batch['longest_text_length']}); "
        f"accumulation {batch['accumulation']}; {batch['filled_text']:.0%} of the text and "
        f"{batch['filled_clips']:.0%} of the places for clips are filled\n  "
        + ", ".join(f"{key} {value}" for key, value in plan.compute.items())
    )


def _memory(plan: Plan) -> list[str]:
    parts = [
        ("base", plan.base_bytes),
        ("trainable", plan.trainable_bytes),
        ("optimiser", plan.optimiser_bytes),
        ("batch", plan.batch_bytes),
        ("activations", plan.activation_bytes),
        ("temporary", plan.temporary_bytes),
        ("peak", plan.peak_bytes_per_chip),
        ("headroom", plan.headroom_bytes),
        ("memory", plan.hbm_bytes_per_chip),
    ]
    return ["bytes per chip", *(f"  {name:<12}{size / 1e9:>9.2f} GB" for name, size in parts)]


def _work(plan: Plan) -> list[str]:
    lines = [f"FLOPs per device  {_tera(plan.flops_per_device)}, by hand "
             f"{_tera(plan.hand_flops_per_device)} (of it computed again "
             f"{_tera(plan.recomputed_flops_per_device)})"]  # fmt: skip
    if plan.flops_per_device:
        lines[0] += f": {plan.flops_per_device / plan.hand_flops_per_device:.3f} of it"
    moved = plan.collective_bytes_per_step
    if moved is not None:
        kinds = ", ".join(f"{kind} {size / 1e9:.3f}" for kind, size in sorted(moved.items()))
        lines.append(f"collective GB per step and device  {kinds or 'none'}")
    unknown = [name for name, count in plan.loops if count is None]
    if unknown:
        lines.append(f"loops counted once, because their rounds are unknown: {', '.join(unknown)}")
    if plan.kernels:
        named = ", ".join(f"{name} x {count:.0f}" for name, count in plan.kernels.items())
        lines.append(f"kernels without an estimate: {named}")
    return lines


def _tera(flops: float | None) -> str:
    return "unknown" if flops is None else f"{flops / 1e12:.3f} T"


def _time(plan: Plan) -> list[str]:
    if plan.est_step_seconds is None:
        return ["estimated step time: none, as there is no program"]
    return [
        f"estimated step time  {plan.est_step_seconds:.4f} s (computing {plan.compute_seconds:.4f},"
        f" collectives {plan.collective_seconds:.4f} if nothing hid them)",
        f"pairs/s  {plan.pairs_per_second:.1f}, rows/s {plan.rows_per_second:.1f}",
        f"MFU bound  {plan.mfu_bound:.1%} (of the whole shapes, empty places and padding too: "
        f"{plan.padded_mfu_bound:.1%})",
        f"stage  {plan.pairs_of_stage:,.0f} pairs, {plan.steps:,} steps: "
        f"{plan.hours_for_stage:.2f} hours",
    ]
