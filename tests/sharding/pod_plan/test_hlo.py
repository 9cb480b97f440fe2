"""The text of an optimised program, line by line."""

from sharding.pod_plan.hlo import FAST_MEMORY, parse_program, parse_shapes

TEXT = """HloModule jit_f, is_scheduled=true

%add.1 (x.1: f32[], y.1: f32[]) -> f32[] {
  %x.1 = f32[]{:T(128)} parameter(0)
  %y.1 = f32[]{:T(128)} parameter(1)
  ROOT %add.2 = f32[]{:T(128)} add(%x.1, %y.1)
}

ENTRY %main.3 (a.1: bf16[8,128]) -> (bf16[8,128], f32[]) {
  %a.1 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %constant.7 = f32[] constant(-3)
  %kernel.2 = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[]) custom-call(%a.1, /*index=1*/%constant.7), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(f)/attention"}, backend_config={"window_config":{"estimated_cycles":"1234"}}
  %get-tuple-element.4 = f32[] get-tuple-element(%kernel.2), index=1
  ROOT %tuple.5 = (bf16[8,128]{1,0}, f32[]) tuple(%a.1, %get-tuple-element.4)
}
"""  # noqa: E501


def test_computations_instructions_and_what_they_say():
    program = parse_program(TEXT)
    assert list(program.computations) == ["add.1", "main.3"]
    entry = program.entry
    assert entry.name == "main.3" and entry.root.name == "tuple.5"
    kernel = entry.instructions["kernel.2"]
    assert kernel.opcode == "custom-call" and kernel.operands == ("a.1", "constant.7")
    assert [str(shape) for shape in kernel.shapes] == ["bf16[8,128]", "f32[]"]
    assert [shape.space for shape in kernel.shapes] == [FAST_MEMORY, 0]
    # Its attributes stand on three lines.
    assert (kernel.target, kernel.op_name) == ("tpu_custom_call", "jit(f)/attention")
    assert kernel.estimated_cycles == 1234 and '\\"block_q\\": 512' in kernel.attributes
    assert entry.instructions["constant.7"].inner == "-3"
    assert entry.instructions["get-tuple-element.4"].attribute("index") == "1"
    assert entry.operands(kernel)[0].bytes == 8 * 128 * 2
    assert [one.name for one in entry.users("a.1")] == ["kernel.2", "tuple.5"]


def test_bytes_of_small_numbers():
    (shape,) = parse_shapes("s4[3,5]{1,0:T(8,128)(8,1)}")
    assert shape.bytes == 8  # 15 halves of a byte
    others = parse_shapes("(f8e4m3fn[4], pred[], token[], u32[2]{0:S(4)})")
    assert [one.bytes for one in others] == [4, 1, 0, 8]


def test_no_estimate_is_none():
    line = '  ROOT %x.1 = f32[] fusion(), backend_config={"estimated_cycles":"9223372036854775807"}'
    program = parse_program("ENTRY %m (a: f32[]) -> f32[] {\n" + line + "\n}\n")
    assert program.entry.root.estimated_cycles is None
