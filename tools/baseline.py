"""Looks for instructions outside of the baseline, where no detection stands before them: tools/baseline.py BINARY

BINARY is for aarch64 (baseline armv8-a) or x86-64 (baseline SSE2), with its symbols: built with -C strip=none. Which
instructions belong to the baseline is the assembler's answer, not a list of this script: each shape of an instruction
that the disassembly has is assembled for the baseline alone. What is refused may stand only in the functions of ALLOWED,
which are called after a look at the CPU. Needs the binutils of the architecture (binutils-aarch64-linux-gnu), nothing
else.
"""

import functools
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

# Functions that run only where the CPU has what they use, and what makes sure of that. Read in each crate, not guessed.
ALLOWED = {
    "aarch64": [
        (r"tintype::kernels::(dotprod|i8mm)::", "tintype: kernels/level.rs detects"),
        (r"__aarch64_(cas|swp|ld\w+)\d+_\w+$", "compiler's outlined atomics: each looks for LSE first"),
        (r"tract_linalg::arm64::(arm64fp16::|add_f16$)", "tract-linalg: has_fp16 of arm64/mod.rs comes first"),
        (r"tract_linalg::arm64::isa_set$", "tract-linalg: reads SVE's width, after has_sve2"),
        (r"arm64fp16_\w+_0_23_9$", "tract-linalg: its assembly, after has_fp16"),
        (r"arm64simd_mmm_i32_8x8_dot_0_23_9$", "tract-linalg: its assembly, after has_dotprod"),
        (r"sme_\w+_0_23_9$", "tract-linalg: its assembly, after has_sme; where the assembler knows SME"),
        (r"(libunwind::|__libunwind_)", "libunwind: in frames that say that they use SVE, SME or tagged memory"),
        (r"sve_\w+_kernel$", "tract-linalg: arm64/sve.rs asks has_sve2"),
        (r"tract_core::ops::cnn::conv::depth_wise::\w+_aarch64fp16$", "tract-core: depth_wise.rs asks has_fp16"),
        (r"half::binary16::arch::aarch64::\w+_fp16$", "half: binary16/arch.rs detects"),
        (r"crc32fast::specialized::aarch64::", "crc32fast: specialized/aarch64.rs detects"),
        (r"constant_time_eq::dit::with_feat_dit", "constant_time_eq: dit.rs detects"),
    ],
    "x86_64": [
        (r"tintype::kernels::(avx2|avx512|avx_vnni|vnni)::", "tintype: kernels/level.rs detects"),
        (r"tract_linalg::x86_64::", "tract-linalg: isa.rs detects, a routine applies where its set is there"),
        (r"(avx|avx2|avx512|avx512amx|avx512vnni|avxvnni|fma)_\w+_0_23_9$", "tract-linalg: its assembly, likewise"),
        (r"rustfft::(avx|sse)::", "rustfft: the planners for AVX and SSE 4.1 refuse where they are missing"),
        (r"_blake3_\w+_(sse41|avx2|avx512)$", "blake3: platform.rs detects"),
        (r"memchr::arch::x86_64::(avx2|memchr)::", "memchr: arch/x86_64/memchr.rs and packedpair.rs detect"),
        (r"aho_corasick::packed::teddy::builder::x86_64::", "aho-corasick: teddy/builder.rs detects"),
        (r"chacha20::backends::avx2::", "chacha20: lib.rs detects"),
        (r"rand_chacha::guts::\w+::impl_(avx2?|sse41|ssse3)$", "rand_chacha: ppv-lite86's dispatch detects"),
        (r"crc32fast::specialized::pclmulqdq::", "crc32fast: specialized/pclmulqdq.rs detects"),
        (r"simd_adler32::imp::(ssse3|avx2)::", "simd-adler32: each file of imp/ detects"),
        (r"half::binary16::arch::x86::", "half: binary16/arch.rs detects"),
        (r"httparse::simd::(avx2|sse42)::", "httparse: simd/runtime.rs detects"),
        (r"matrixmultiply::(sgemm_kernel::kernel_target_|packing::pack_avx2)", "matrixmultiply: sgemm_kernel.rs detects"),
        (r"sha2::sha256::x86::digest_blocks$", "sha2: sha256/x86.rs detects"),
        (r"zune_jpeg::\w+::avx2?::", "zune-jpeg: the options of zune-core detect"),
        (r"compiler_builtins::math::libm_math::arch::x86::fma::fmaf?_with_", "compiler_builtins: fma.rs detects"),
        (r"core::core_arch::x86::", "core: intrinsics that were not inlined, called by the functions above"),
        (r"std_detect::detect::", "std: the detection itself"),
    ],
}
MACHINES = {0xB7: "aarch64", 0x3E: "x86_64"}
BASELINE = {"aarch64": "armv8-a", "x86_64": "generic64"}
FUNCTIONS_MIN = 1000  # a program without symbols has none
EXAMPLES = 4  # of what is wrong in a function
REFUSED = re.compile(r"^[^:]*:(\d+): Error: (.*)$", re.MULTILINE)
PLACE = re.compile(r"\b(?:0x)?[0-9a-f]+ <.*")
UNKNOWN = re.compile(r"\.inst|\(bad\)")


def architecture(binary: Path) -> str:
    """The architecture that the ELF header names."""
    header = binary.open("rb").read(20)
    machine = MACHINES.get(int.from_bytes(header[18:20], "little")) if header[:6] == b"\x7fELF\x02\x01" else None
    if machine is None:
        sys.exit(f"{binary}: neither a program for aarch64 nor one for x86-64")
    return machine


def disassembly(binary: Path, machine: str):
    """Each instruction with the function it stands in, as it is to be assembled."""
    command = [f"{machine}-linux-gnu-objdump", "-dC", "--no-show-raw-insn", binary]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        function = ""
        for line in process.stdout:
            if line.endswith(">:\n"):
                name = line[line.index("<") + 1 : -3]
                # A name with a dot is a label inside of a function that was written as assembly.
                function = function if name.startswith(".") else name
            elif ":\t" in line:
                yield function, line.split(":\t", 1)[1].strip()
    if process.returncode:
        sys.exit(f"{binary}: objdump failed")


@functools.cache
def source(text: str) -> str:
    """An instruction as the assembler takes it: without comments, and what does nothing as `nop`."""
    text = re.split(r" +// |  +# ", text.replace("\t", " "))[0].strip()
    if text.startswith(("data16 ", "cs nop", "endbr64")):
        return "nop"
    # Other names for what the baseline has: `rep bsf`, which compilers take where both mean the same, and `bfi` of zero.
    return re.sub(r"^bfc ([wx])(\d+),", r"bfi \1\2, \1zr,", text.replace("tzcnt", "bsf", 1))


@functools.cache
def shape(text: str) -> str:
    """What instructions have in common that differ in the numbers of registers and in constants alone."""
    name, _, operands = text.partition(" ")
    number = r"(?<=[vqdsbhwxzpr])\d+\b|(?<=mm)\d+|0x[0-9a-f]+|(?<![\w.])-?\d[\w.+-]*"
    return f"{name} {re.sub(number, 'N', operands)}"


def refused(texts: list[str], machine: str) -> dict[str, str]:
    """The instructions that the baseline does not have, or that the assembler does not know, with its message."""
    with tempfile.NamedTemporaryFile("w", suffix=".s") as file:
        file.write("\n".join(texts) + "\n")
        file.flush()
        command = [f"{machine}-linux-gnu-as", f"-march={BASELINE[machine]}", "-o", "/dev/null", file.name]
        answer = subprocess.run(command, capture_output=True, text=True).stderr
    unknown = {text: f"unknown to the disassembler: `{text}`" for text in texts if UNKNOWN.match(text)}
    return unknown | {texts[int(line) - 1]: message for line, message in REFUSED.findall(answer)}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("baseline.py: name one program")
    binary = Path(sys.argv[1])
    machine = architecture(binary)
    examples, places, instructions = {}, {}, 0
    for function, text in disassembly(binary, machine):
        instructions += 1
        text = source(PLACE.sub(".", text) if "<" in text else text)
        form = shape(text)
        examples.setdefault(form, text)
        places.setdefault(form, Counter())[function] += 1
    functions = {function for found in places.values() for function in found}
    if len(functions) < FUNCTIONS_MIN:
        sys.exit(f"{binary}: no symbols: build it with `cargo rustc --release --bin tintype -- -C strip=none`")
    outside = refused(list(examples.values()), machine)
    allowed, wrong = Counter(), {}
    for form, message in ((form, outside[text]) for form, text in examples.items() if text in outside):
        for function, count in places[form].items():
            reason = next((why for name, why in ALLOWED[machine] if re.match(f"<?{name}", function)), None)
            if reason is None:
                wrong.setdefault(function, []).append(f"{message} ({count} times)")
            else:
                allowed[reason] += count
    print(f"{binary}: {machine}, {len(functions)} functions, {instructions} instructions in {len(examples)} shapes")
    for reason, count in allowed.most_common():
        print(f"{count:8} outside of {BASELINE[machine]}, allowed: {reason}")
    for function, messages in sorted(wrong.items()):
        print(f"{function}:", *messages[:EXAMPLES], sep="\n    ", file=sys.stderr)
    if wrong:
        sys.exit(f"{binary}: {len(wrong)} functions may not use what they use: every {machine} would have to have it")


if __name__ == "__main__":
    main()
