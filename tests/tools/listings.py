"""Machine code as disassemblers print it, cut short, with the ways that kernels go for their operands and labels."""

# Each tile: a label, the tile's logits, and what only a tile with a positive executes, where the label's own logit is
# loaded. The weights are loaded through registers that hold another pointer before and after, as wide as logits, and on a
# way of their own that is shorter than the one through the logits.
DIRECT = """
    S2R R0, SR_TID.X ;
    LEA R4, P0, R0, c[0x0][0x168], 0x3 ;
    LEA.HI.X.SX32 R5, R0, c[0x0][0x16c], 0x3, P0 ;
    LDG.E.64 R2, [R4.64] ;
    ISETP.NE.U32.AND P1, PT, R2, 0x50, PT ;
    SEL R6, RZ, 0x1, !P1 ;
    REDUX.MAX.S32 UR4, R6 ;
    MOV R7, UR4 ;
    ISETP.GE.AND P2, PT, R7, 0x1, PT ;
    @!P2 BRA `(.L_x_1) ;
    LEA R8, P3, R2, c[0x0][0x160], 0x2 ;
    LEA.HI.X.SX32 R9, R2, c[0x0][0x164], 0x2, P3 ;
    @P1 LDG.E R10, [R8.64] ;
    MUFU.EX2 R10, R10 ;
.L_x_1:
    ISETP.GE.AND P4, PT, R0, c[0x0][0x180], PT ;
    MOV R4, c[0x0][0x170] ;
    MOV R5, c[0x0][0x174] ;
    @P4 BRA `(.L_x_2) ;
    LDG.E.128 R12, [R4.64] ;
    LEA R4, P0, R0, c[0x0][0x160], 0x4 ;
    LEA.HI.X.SX32 R5, R0, c[0x0][0x164], 0x4, P0 ;
    FMUL R20, R12, 0.5 ;
    LDG.E.128 R16, [R4.64] ;
    EXIT ;
.L_x_2:
    LDG.E.128 R16, [R4.64] ;
    EXIT ;
"""
# The same in uniform registers, with pairs added and what was one register made two.
UNIFORM = """
    S2R R0, SR_TID.X ;
    LDCU.128 UR8, c[0x0][0x380] ;
    LDC.64 R22, c[0x0][0x390] ;
    IMAD.WIDE R4, R0, 0x8, RZ ;
    IADD.64 R4, R4, UR10 ;
    LDG.E.64 R2, desc[UR6][R4.64] ;
    ISETP.NE.U64.AND P1, PT, R2, UR4, PT ;
    P2R R6, PR, RZ, 0x2 ;
    CREDUX.MAX.S32 UR12, R6 ;
    UISETP.NE.AND UP1, UPT, UR12, URZ, UPT ;
    BRA.U !UP1, `(.L_x_1) ;
    IMAD.WIDE R8, R2, 0x4, RZ ;
    IADD3 R8, P3, PT, R8, UR8, RZ ;
    IADD3.X R9, PT, PT, R9, UR9, RZ, P3, !PT ;
    @P1 LDG.E R10, desc[UR6][R8.64] ;
    MUFU.EX2 R10, R10 ;
.L_x_1:
    ISETP.GE.AND P4, PT, R0, R2, PT ;
    MOV.64 R4, R22 ;
    @P4 BRA `(.L_x_2) ;
    LDG.E.128 R12, desc[UR6][R4.64] ;
    MOV.64 R4, UR8 ;
    IMAD.WIDE.U32 R4, R0, 0x10, R4 ;
    LDG.E.128 R16, desc[UR6][R4.64+0x40] ;
    EXIT ;
.L_x_2:
    LDG.E.128 R16, desc[UR6][R4.64] ;
    EXIT ;
"""
BUFFER = """
	s_load_dwordx4 s[8:11], s[4:5], 0x0
	s_load_dwordx2 s[12:13], s[4:5], 0x10
	v_lshlrev_b32_e32 v2, 3, v0
	s_mov_b64 s[16:17], s[10:11]
	s_mov_b32 s18, 0x7ffffffe
	buffer_load_dwordx2 v[6:7], v2, s[16:19], 0 offen
	v_cmp_ne_u32_e32 vcc, 80, v6
	v_cndmask_b32_e64 v8, 0, 1, vcc
	v_max_i32_dpp v8, v8, v8 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1
	v_cmp_lt_i32_e64 s[2:3], 0, v8
	s_mov_b64 s[16:17], s[8:9]
	s_and_saveexec_b64 s[22:23], s[2:3]
	s_cbranch_execz .LBB0_1
	v_lshlrev_b32_e32 v9, 2, v6
	buffer_load_dword v9, v9, s[16:19], 0 offen
	v_exp_f32_e32 v9, v9
.LBB0_1:
	s_or_b64 exec, exec, s[22:23]
	v_lshlrev_b32_e32 v2, 4, v0
	s_mov_b64 s[16:17], s[12:13]
	s_cmp_lt_i32 s6, 1
	s_cbranch_scc1 .LBB0_2
	buffer_load_dwordx4 v[12:15], v2, s[16:19], 0 offen
	s_mov_b64 s[16:17], s[8:9]
	v_mul_f32_e32 v20, 0.5, v12
	buffer_load_dwordx4 v[16:19], v2, s[16:19], 0 offen
	s_endpgm
.LBB0_2:
	buffer_load_dwordx4 v[16:19], v2, s[16:19], 0 offen
	s_endpgm
"""
# A thread asks its label alone: whether there is a positive, whether it is here, and behind it whether there is another.
ALONE = """
    S2R R0, SR_TID.X ;
    LDC.64 R4, c[0x0][0x388] ;
    IMAD.WIDE R4, R0, 0x8, R4 ;
    LDG.E.64 R2, desc[UR6][R4.64] ;
    ISETP.GT.U32.AND P0, PT, R2, 0x4f, PT ;
    @P0 BRA `(.L_x_2) ;
    ISETP.NE.AND P1, PT, R2, R0, PT ;
    @P1 BRA `(.L_x_2) ;
.L_x_1:
    MUFU.EX2 R10, R10 ;
    MUFU.RCP R10, R10 ;
    ISETP.NE.AND P2, PT, R2, R10, PT ;
    @!P2 BRA `(.L_x_1) ;
.L_x_2:
    LDC.64 R4, c[0x0][0x380] ;
    IMAD.WIDE R4, R0, 0x10, R4 ;
    LDG.E.128 R16, desc[UR6][R4.64] ;
    EXIT ;
"""
