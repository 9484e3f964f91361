"""Loops, cycles and collectives of hand-written HLO, counted by hand."""

import pytest

from ltu_jax.planning.hlo_cost import roll_up

# Entry: one fusion of 100 cycles, a loop of 4 rounds (first 0, step 1, LT 4). Each round: a fusion
# of 10 cycles with a product [8,16]x[16,32], an all-gather of 2 x 1024 bf16, and an inner loop that
# counts down from 6 by 2 to above 0 (3 rounds) of one copy of 7 cycles. The bound of the inner loop
# and the step of the outer one are handed in from outside.
NESTED = """HloModule nested, is_scheduled=true

%product (a: bf16[8,16], b: bf16[16,32]) -> bf16[8,32] {
  %a = bf16[8,16]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[16,32]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %dot.1 = bf16[8,32]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%inner_body (p: (s32[], bf16[8,16], s32[])) -> (s32[], bf16[8,16], s32[]) {
  %p = (s32[], bf16[8,16], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[8,16] get-tuple-element(%p), index=1
  %zero = s32[] get-tuple-element(%p), index=2
  %two = s32[] constant(2)
  %next = s32[] subtract(%i, %two)
  %moved = bf16[8,16] copy(%x), backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %t = (s32[], bf16[8,16], s32[]) tuple(%next, %moved, %zero)
}

%inner_condition (p: (s32[], bf16[8,16], s32[])) -> pred[] {
  %p = (s32[], bf16[8,16], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %zero = s32[] get-tuple-element(%p), index=2
  ROOT %more = pred[] compare(%i, %zero), direction=GT
}

%body (p: (s32[], bf16[8,16], bf16[16,32], s32[])) -> (s32[], bf16[8,16], bf16[16,32], s32[]) {
  %p = (s32[], bf16[8,16], bf16[16,32], /*index=3*/s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[8,16] get-tuple-element(%p), index=1
  %w = bf16[16,32] get-tuple-element(%p), index=2
  %one = s32[] get-tuple-element(%p), index=3
  %zero = s32[] constant(0)
  %six = s32[] constant(6)
  %fused = bf16[8,32] fusion(%x, %w), calls=%product, backend_config={"estimated_cycles":"10"}
  %gathered = bf16[2,1024] all-gather(%fused), channel_id=1, dimensions={0}
  %start = (s32[], bf16[8,16], s32[]) tuple(%six, %x, %zero)
  %inner = (s32[], bf16[8,16], s32[]) while(%start), condition=%inner_condition, body=%inner_body
  %y = bf16[8,16] get-tuple-element(%inner), index=1
  %next = s32[] add(%one, %i)
  ROOT %t = (s32[], bf16[8,16], bf16[16,32], s32[]) tuple(%next, %y, %w, %one)
}

%condition (p: (s32[], bf16[8,16], bf16[16,32], s32[])) -> pred[] {
  %p = (s32[], bf16[8,16], bf16[16,32], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %four = s32[] constant(4)
  ROOT %less = pred[] compare(%i, %four), direction=LT
}

ENTRY %main (x: bf16[8,16], w: bf16[16,32]) -> bf16[8,16] {
  %x = bf16[8,16]{1,0} parameter(0)
  %w = bf16[16,32]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %one = s32[] constant(1)
  %warm = bf16[8,16] fusion(%x), kind=kLoop, calls=%none, backend_config={"estimated_cycles":"100"}
  %start = (s32[], bf16[8,16], bf16[16,32], s32[]) tuple(%zero, %warm, %w, %one)
  %loop = (s32[], bf16[8,16], bf16[16,32], s32[]) while(%start), condition=%condition, body=%body
  ROOT %out = bf16[8,16] get-tuple-element(%loop), index=1
}
"""


def test_nested_loops_are_counted_as_often_as_they_run():
    cost = roll_up(NESTED)
    assert dict(cost.loops) == {"loop": 4, "inner": 3}
    assert cost.cycles == 100 + 4 * (10 + 3 * 7)
    assert cost.collective_bytes == {"all-gather": 4 * 2 * 1024 * 2}
    assert cost.waiting_bytes == 4 * 2 * 1024 * 2


def test_a_trip_count_that_the_compiler_states_is_taken():
    stated = NESTED.replace(
        "condition=%condition, body=%body",
        'condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"9"}}',
    )
    assert dict(roll_up(stated).loops) == {"loop": 9, "inner": 3}


@pytest.mark.parametrize(
    "direction, bound, rounds",
    [("LT", 9, 9), ("LE", 9, 10), ("NE", 9, 9), ("LT", 0, 0), ("GT", 9, None)],
)
def test_directions_of_the_comparison(direction, bound, rounds):
    text = NESTED.replace("constant(4)", f"constant({bound})").replace(
        "compare(%i, %four), direction=LT", f"compare(%i, %four), direction={direction}"
    )
    assert dict(roll_up(text).loops)["loop"] == rounds


def test_a_bound_on_the_left_is_read_the_other_way_round():
    text = NESTED.replace("compare(%i, %four), direction=LT", "compare(%four, %i), direction=GT")
    assert dict(roll_up(text).loops)["loop"] == 4


def test_a_loop_that_nothing_tells_counts_once_and_is_named():
    cost = roll_up(NESTED.replace("%four = s32[] constant(4)", "%four = s32[] custom-call()"))
    assert dict(cost.loops) == {"loop": None, "inner": 3}
    assert cost.cycles == 100 + 10 + 3 * 7


COLLECTIVES = """HloModule moved

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%start (s: bf16[64]) -> bf16[1024] {
  %s = bf16[64] parameter(0)
  ROOT %g1 = bf16[1024] all-gather(%s), channel_id=7, dimensions={0}
}

%middle (s: bf16[64]) -> bf16[1024] {
  %s = bf16[64] parameter(0)
  ROOT %g2 = bf16[1024] all-gather(%s), channel_id=7, dimensions={0}
}

ENTRY %main (s: bf16[64], g: f32[256]) -> f32[256] {
  %s = bf16[64] parameter(0)
  %g = f32[256] parameter(1)
  %a = bf16[1024] fusion(%s), kind=kCustom, calls=%start
  %b = bf16[1024] fusion(%s), kind=kOutput, calls=%middle, backend_config={"estimated_cycles":"50"}
  %c = (bf16[64], bf16[64], u32[], u32[]) collective-permute-start(%s), channel_id=8
  %d = bf16[64] collective-permute-done(%c)
  ROOT %r = f32[256] all-reduce(%g), channel_id=9, to_apply=%sum
}
"""


def test_an_overlapped_collective_counts_once_and_only_the_others_wait():
    cost = roll_up(COLLECTIVES)
    assert cost.collective_bytes == {
        "all-gather": 1024 * 2,
        "collective-permute": 64 * 2,
        "all-reduce": 256 * 4,
    }
    # An all-reduce is a scatter and a gather.
    assert cost.waiting_bytes == 2 * 256 * 4
    assert cost.hidden_bytes == 1024 * 2 + 64 * 2
    assert cost.cycles == 50
