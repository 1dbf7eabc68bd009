"""What the kernel report reads off small listings of each family of machine code."""

import re

import pytest

from tests.tools.listings import ALONE, BUFFER, DIRECT, UNIFORM
from tools.kernel_analysis import gcn, sass
from tools.kernel_analysis.counts import count
from tools.kernel_analysis.data_flow import AGREED, TEST, origins
from tools.kernel_analysis.machine_code import parse

NAMES = ('x_ptr', 'label_ptr', 'weight_ptr')
# Listing, the offset of its first parameter, registers with their address; and the instructions on the way through the
# logits, without what only a positive executes, and of that.
FAMILIES = {
    'parameters as operands (sm_75 to sm_89)': (DIRECT, 0x160, (), 20, 4),
    'parameters in uniform registers (sm_90 to sm_120)': (UNIFORM, 0x380, (), 19, 5),
    'buffers (gfx90a, gfx942)': (BUFFER, 0, ('s4', 's5'), 23, 3),
}


def read(text, first, entry=(), names=NAMES, decides=(AGREED,)):
    """(listing, origins) of a kernel of three pointers."""
    if 's_endpgm' not in text:
        text = re.sub('^    ', '    /*0000*/ ', text, flags=re.MULTILINE)
    listing = parse(text)
    steps = gcn.steps(listing) if listing.is_gcn else [sass.step(one) for one in listing.instructions]
    return listing, origins(listing, steps, {first + 8 * n: name for n, name in enumerate(names)}, entry, decides)


def of_loads(listing, found):
    return [origin for one, origin in zip(listing.instructions, found, strict=True) if one.is_load]


@pytest.mark.parametrize('family', FAMILIES)
def test_accesses_are_told_by_the_pointer_that_their_address_comes_from(family):
    text, first, entry, *_ = FAMILIES[family]
    listing, found = read(text, first, entry)
    loads = [(*origin.pointers, ''.join(origin.indices)) for origin in of_loads(listing, found)]
    label, weight = ('label_ptr', ''), ('weight_ptr', '')
    assert loads == [label, ('x_ptr', 'label_ptr'), weight, ('x_ptr', ''), weight]


@pytest.mark.parametrize('family', FAMILIES)
def test_branches_are_told_by_what_the_threads_found_in_the_labels(family):
    text, first, entry, *_ = FAMILIES[family]
    listing, found = read(text, first, entry)
    branches = [
        set(origin.deciders)
        for one, origin in zip(listing.instructions, found, strict=True)
        if one.target and not one.never_falls_through
    ]
    assert branches == [{'label_ptr'}, set()]


@pytest.mark.parametrize('targets', ('label_ptr', 'target_ptr'))
@pytest.mark.parametrize('family', FAMILIES)
def test_a_tile_with_a_positive_takes_the_longer_way(family, targets):
    """Told by labels, or by dense targets."""
    text, first, entry, shorter, positive = FAMILIES[family]
    kernel = read(text, first, entry, names=('x_ptr', targets, 'weight_ptr'))
    counted = count(*kernel, 32, slots=4, logits=4, stores=False, positives=(0.25,))
    assert counted['slots/logit without a positive'] == shorter / 4
    assert counted['slots/logit'] == (shorter + 0.25 * positive) / 4
    assert counted['MUFU/logit'] == 0.25 / 4
    assert counted['widest access (bits)'] == counted['narrowest access (bits)'] == 128


def test_threads_that_ask_alone_go_the_way_of_a_positive_as_far_as_their_labels_send_them():
    """Half of them find a positive in the rows (2 instructions more), a quarter have it here (4 more, gone through once)."""
    read_alone = read(ALONE, 0x380, decides=(AGREED, TEST))
    counted = count(*read_alone, 32, slots=4, logits=4, stores=False, positives=(0.5, 0.25))
    assert counted['slots/logit without a positive'] == 10 / 4
    assert counted['slots/logit'] == (10 + 0.5 * 2 + 0.25 * 4) / 4
    assert counted['MUFU/logit'] == 0.25 * 2 / 4


def test_what_a_thread_asks_alone_decides_nothing_for_a_tile():
    counted = count(*read(ALONE, 0x380), 32, slots=4, logits=4, stores=False, positives=(0.5,))
    assert counted['slots/logit'] == counted['slots/logit without a positive'] == 10 / 4


@pytest.mark.parametrize(('instruction', 'result'), (('VOTEU.ALL UP0, P2', 'UP0'), ('VOTE.ANY R3, PT, P1', 'R3')))
def test_threads_agree_by_a_vote_on_a_predicate_or_a_register(instruction, result):
    (one,) = parse(f'    /*0000*/ {instruction} ;').instructions
    assert [(effect.destination, effect.how) for effect in sass.step(one).effects] == [(result, 'agrees')]


# One address or another, by the way that was taken, the choice made, the trip, the lane.
EITHER = {
    'ways': """
    MOV R4, c[0x0][0x160] ;
    @P0 BRA `(.L_x_1) ;
    MOV R4, c[0x0][0x170] ;
.L_x_1:
    LDG.E.128 R16, [R4.64] ;
    EXIT ;
""",
    'a choice': """
    SEL R4, c[0x0][0x160], c[0x0][0x170], P0 ;
    LDG.E.128 R16, [R4.64] ;
    EXIT ;
""",
    'a loop': """
    MOV R4, c[0x0][0x160] ;
.L_x_1:
    LDG.E.128 R16, [R4.64] ;
    MOV R4, c[0x0][0x170] ;
    @P0 BRA `(.L_x_1) ;
    EXIT ;
""",
    'masked lanes': """
	s_load_dwordx2 s[8:9], s[0:1], 0x160
	s_load_dwordx2 s[10:11], s[0:1], 0x170
	v_mov_b32_e32 v4, s8
	s_and_saveexec_b64 s[22:23], vcc
	v_mov_b32_e32 v4, s10
	s_or_b64 exec, exec, s[22:23]
	global_load_dwordx4 v[16:19], v[4:5], off
	s_endpgm
""",
}


@pytest.mark.parametrize('way', EITHER)
def test_an_address_of_one_pointer_or_another_is_no_count(way):
    listing, found = read(EITHER[way], 0x160, ('s0', 's1'))
    loads = [origin for origin in of_loads(listing, found) if 'x_ptr' in origin.pointers]
    assert [set(origin.pointers) for origin in loads] == [{'x_ptr', 'weight_ptr'}]
    with pytest.raises(ValueError, match='may use weight_ptr or x_ptr: unknown data flow'):
        count(listing, found, 32, slots=4, logits=4, stores=False)


def test_a_guarded_address_takes_the_place_of_an_old_one():
    """P3 is P0 by another name: the load is never left with the old address, though that can't be seen."""
    text = """
    LDC.64 R2, c[0x0][0x170] ;
    LDG.E R12, desc[UR12][R2.64] ;
    @!P0 LEA R2, P0, R0, c[0x0][0x160], 0x4 ;
    @!P3 LDG.E.128 R8, desc[UR12][R2.64] ;
    EXIT ;
"""
    _, found = read(text, 0x160)
    assert [set(found[n].pointers) for n in (1, 3)] == [{'weight_ptr'}, {'x_ptr'}]


# 3 instructions, 3 trips of 7 (4 logits, 2 MUFU each), 3 that lead through a wide load of 2 logits (and not through the
# narrow ones), 2 where the two ways join (1 MUFU), and 1 at the end.
LOOP = """
    LDC.64 R8, c[0x0][0x160] ;
    LDC.64 R2, c[0x0][0x170] ;
    @!P0 LDG.E R6, desc[UR6][R2.64] ;
.L_x_1:
    @!P1 LDG.E.128 R4, desc[UR6][R8.64] ;
    MUFU.EX2 R51, R38 ;
    @P2 MUFU.RCP R18, R18 ;
    ISETP.NE.U32.AND P5, PT, R46, R31, PT ;
    @!P5 FMUL R19, R19, 0.5 ;
    STG.E.128 desc[UR6][R2.64], R4 ;
    @P3 BRA `(.L_x_1) ;
    @!P4 BRA `(.L_x_2) ;
    LDG.E.64.CONSTANT R4, desc[UR6][R8.64] ;
    BRA `(.L_x_3) ;
.L_x_2:
    @P5 LDG.E R4, desc[UR6][R8.64] ;
    @P6 LDG.E R5, desc[UR6][R8.64+0x4] ;
.L_x_3:
    MUFU.EX2 R51, R38 ;
    STG.E.64 desc[UR6][R2.64], R4 ;
    EXIT ;
.L_x_4:
    BRA `(.L_x_4);
    NOP;
"""


def test_loops_are_counted_by_their_trips():
    listing, found = read(LOOP, 0x160, names=('x_ptr', 'label_ptr', 'out_ptr'))
    counted = count(listing, found, logit_bits=32, slots=14, logits=14, stores=True)
    assert counted == pytest.approx(
        {
            'widest access (bits)': 128,
            'narrowest access (bits)': 64,
            'slots/logit': (3 + 3 * 7 + 3 + 2 + 1) / 14,
            'slots/logit without a positive': (3 + 3 * 7 + 3 + 2 + 1) / 14,
            'FP32/logit': 3 / 14,
            'integer/logit': 3 / 14,
            'MUFU/logit': (3 * 2 + 1) / 14,
        }
    )
    with pytest.raises(ValueError, match='unknown control flow'):
        count(listing, found, logit_bits=32, slots=15, logits=15, stores=True)
