"""The loops that are modelled, the cores they are modelled for, and what those cores are said to do."""

from dataclasses import dataclass

# Instructions that multiply and add: multiplications of one, by the start of its text and its operands.
MACS = [
    # (pattern of the instruction, multiplications)
    (r"fmla\s+v\d+\.4s", 4),
    (r"[su]dot\s+v\d+\.4s", 16),
    (r"smmla\s+v\d+\.4s", 32),
    (r"smlal2?\s+v\d+\.8h|smull2?\s+v\d+\.8h", 8),
    (r"smlal2?\s+v\d+\.4s|smull2?\s+v\d+\.4s", 4),
    (r"vfn?madd\d+ps\s.*%ymm", 8),
    (r"vpmaddwd\s.*%ymm", 16),
]

# What the makers' software optimisation guides say that a core starts in a cycle, of 128-bit vectors. A model that says
# otherwise of arithmetic is not used; of loads that is only said: LLVM 22 counts one of N1 as two of the three instructions
# that it takes in a cycle.
#   (core, a line of assembly with {n} where registers have to differ): instructions a cycle
SAID = {
    ("cortex-a72", "fmla v{n}.4s, v30.4s, v31.4s"): 1,  # FP multiply accumulate, Q-form
    ("cortex-a72", "smlal v{n}.8h, v30.8b, v31.8b"): 1,  # multiply accumulate long
    ("cortex-a72", "ldr q{n}, [x0]"): 1,
    ("neoverse-n1", "fmla v{n}.4s, v30.4s, v31.4s"): 2,  # and the a76
    ("neoverse-n1", "fmla v{n}.4s, v30.4s, v31.s[1]"): 2,
    ("neoverse-n1", "sdot v{n}.4s, v30.16b, v31.16b"): 2,
    ("neoverse-n1", "sdot v{n}.4s, v30.16b, v31.4b[1]"): 2,
    ("neoverse-n1", "ldr q{n}, [x0]"): 2,
    ("neoverse-n1", "ld1r {{v{n}.4s}}, [x0]"): 2,
    ("neoverse-n2", "smmla v{n}.4s, v30.16b, v31.16b"): 2,
}


@dataclass
class Core:
    """A core by LLVM's name, and multiplications in a cycle at most: f32, int8."""

    name: str
    stands_for: str
    f32: float
    int8: float


CORES = {
    core.name: core
    for core in [
        Core("cortex-a53", "Pi 3, Zero 2 W", 4, 4),
        Core("cortex-a72", "Pi 4; LLVM has the same model for the a57 of a Jetson Nano", 4, 8),
        Core("neoverse-n1", "a76: Pi 5; a78ae: Orin", 8, 32),
        Core("neoverse-n2", "ARM cores with i8mm", 8, 64),
        Core("znver3", "AMD Zen 3", 16, 32),
        Core("znver5", "AMD Zen 5, with vectors of 256 bits", 16, 32),
    ]
}


@dataclass
class Loop:
    """An inner loop: of the functions whose symbols match, the innermost one with the most vector instructions.

    With more than one round it is what lies around it that counts, with so many rounds of what lies inside.
    """

    name: str
    symbol: str
    cores: list[str]
    rounds: int = 1
    integer: bool = False


NEON = ["cortex-a53", "cortex-a72", "neoverse-n1"]
X86 = ["host"]

LOOPS = {
    "arm": [
        Loop("f32 product", r"4neon10accumulate", NEON),
        Loop("int8 to f32", r"10dequantise4int8|4neon21int8_groups_unchecked", NEON),
        Loop("f16 to f32", r"10dequantise7float16", NEON),
        Loop("Winograd, inputs", r"run_lanes_unchecked.*9TurnInput|8winograd5input", NEON, rounds=6),
        Loop("Winograd, weights", r"run_lanes_unchecked.*11TurnWeights|8winograd7weights", NEON, rounds=6),
        Loop("Winograd, outputs", r"run_lanes_unchecked.*8TurnSums|8winograd6output", NEON, rounds=4),
        Loop("softmax", r"7Running3add", NEON),
        Loop("GELU", r"8Function5apply", NEON),
        Loop("norm and SiLU", r"4norm12apply_affine", NEON),
        Loop("int8 product, smull", r"4neon11i8_multiply", NEON[:2], integer=True),
        Loop("int8 product, sdot", r"7dotprod18multiply_unchecked", ["neoverse-n1"], integer=True),
        Loop("int8 product, smmla", r"4i8mm18multiply_unchecked", ["neoverse-n2"], integer=True),
    ],
    "x86": [
        Loop("f32 product", r"4avx220accumulate_unchecked", X86),
        Loop("int8 to f32", r"4avx221int8_groups_unchecked", X86),
        Loop("f16 to f32", r"4avx223float16_group_unchecked", X86),
        Loop("Winograd, inputs", r"4avx219run_lanes_unchecked.*9TurnInput", X86, rounds=6),
        Loop("Winograd, weights", r"4avx219run_lanes_unchecked.*11TurnWeights", X86, rounds=6),
        Loop("Winograd, outputs", r"4avx219run_lanes_unchecked.*8TurnSums", X86, rounds=4),
        Loop("softmax", r"4avx213run_unchecked.*7softmax3Add", X86),
        Loop("GELU", r"4avx213run_unchecked.*10activation5Apply", X86),
        Loop("norm and SiLU", r"4avx213run_unchecked.*4norm5Apply", X86),
        Loop("int16 product", r"4avx224i16_accumulate_unchecked", X86, integer=True),
    ],
}
