# What Slang, a second reader of HLSL, says about what naga writes for DirectX: python3 hlsl.py FOLDER SHADERS, where FOLDER is that of
# the library in PyPI's `slangtorch` and SHADERS is what `gates` wrote. Each text is read, checked and written out again. Planted
# faults come first: a reader that takes them judges nothing. The library is called by its C functions, since its program takes
# five times as long for a text, most of it to start.
import ctypes
import json
import multiprocessing
import re
import sys
from pathlib import Path

# Of Slang's enumerations.
HLSL, COMPUTE = 2, 6
# Warnings that say nothing about a shader, by their numbers.
HARMLESS = {
    # naga writes WGSL's `select` as `?:`, also of vectors, which HLSL of 2021 no longer has: wgpu asks DXC for that of 2018.
    30056: "`?:` of vectors, which HLSL of 2018 has",
}
DIAGNOSTIC = re.compile(r"^(warning|error|fatal error|internal error)\[E(\d+)\]: (.*)$", re.M)
PLACE = re.compile(r"\s*-->\s*[^:\s]*:(\d+)")
# Arrays of arrays that are set to zero: Slang reads the sizes in a type by itself in the other order than behind a name, where HLSL's
# compilers have one order for both, as C has.
ZEROS = re.compile(r"\((\w+)\[(\d+)\]\[(\d+)\]\)0;")
ENTRY = re.compile(r"\[numthreads\([^)]*\)\]\s*void (\w+)\(")

KERNEL = """RWByteAddressBuffer result : register(u0);
groupshared float shared_[64];
%s
[numthreads(64, 1, 1)] void main(uint lane : SV_GroupIndex) {
    shared_[lane] = 1.0; GroupMemoryBarrierWithGroupSync(); %s
}"""
SOUND = KERNEL % ("", "result.Store(4u * lane, asuint(shared_[63u - lane]));")
PLANTED = {
    "a name that is not there": ("", "result.Store(4u * lane, nothing);"),
    "a type that does not fit": ("", "float3 a = float2(1.0, 2.0); result.Store(4u * lane, asuint(a.x));"),
    "a call without the right arguments": ("", "result.Store(4u * lane, asuint(fma(float2(1.0, 2.0), 1u)));"),
    "a number never written": ("", "float a; result.Store(4u * lane, asuint(a));"),
    "an array never written": ("", "float a[4]; result.Store(4u * lane, asuint(a[lane & 3u]));"),
    "an index outside of workgroup memory": ("", "result.Store(4u * lane, asuint(shared_[64]));"),
    "a function that may give nothing": (
        "float f(float a) { if (a > 1.0) { return a; } }",
        "result.Store(4u * lane, asuint(f(shared_[lane])));",
    ),
    "a result never written": (
        "void f(out float a) {}",
        "float a; f(a); result.Store(4u * lane, asuint(a));",
    ),
    "a number that f32 has not": ("", "result.Store(4u * lane, asuint(1e39));"),
    "a division by 0": ("", "result.Store(4u * lane, lane + 7u / 0u);"),
    "a constant that is written": (
        "static const float k = 1.0;",
        "k = 2.0; result.Store(4u * lane, asuint(k));",
    ),
    "a number cut to an integer": ("", "int a = 3.7; result.Store(4u * lane, asuint(a));"),
}

slang, session = None, None


def start(library):
    """Loads the library in this process."""
    global slang, session
    slang = ctypes.CDLL(library)
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    functions = {
        "spCreateSession": (handle, [text]),
        "spCreateCompileRequest": (handle, [handle]),
        "spDestroyCompileRequest": (None, [handle]),
        "spProcessCommandLineArguments": (number, [handle, ctypes.POINTER(text), number]),
        "spAddTranslationUnit": (number, [handle, number, text]),
        "spAddTranslationUnitSourceString": (None, [handle, number, text, text]),
        "spAddEntryPoint": (number, [handle, number, text, number]),
        "spCompile": (number, [handle]),
        "spGetDiagnosticOutput": (text, [handle]),
        "spGetEntryPointCode": (handle, [handle, number, ctypes.POINTER(ctypes.c_size_t)]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(slang, name)
        function.restype, function.argtypes = result, arguments
    session = slang.spCreateSession(None)


def faults(source):
    """What Slang has against a text, and how many harmless warnings it gave; that nothing came out is a fault, too."""
    entries = ENTRY.findall(source)
    if len(entries) != 1:
        return [f"{len(entries)} entry points"], 0
    request = slang.spCreateCompileRequest(session)
    words = [b"-target", b"hlsl", b"-profile", b"sm_6_2"]
    failed = slang.spProcessCommandLineArguments(request, (ctypes.c_char_p * len(words))(*words), len(words)) < 0
    unit = slang.spAddTranslationUnit(request, HLSL, b"naga")
    slang.spAddTranslationUnitSourceString(request, unit, b"naga.hlsl", source.encode())
    entry = slang.spAddEntryPoint(request, unit, entries[0].encode(), COMPUTE)
    failed = slang.spCompile(request) < 0 or failed
    said = (slang.spGetDiagnosticOutput(request) or b"").decode()
    length = ctypes.c_size_t(0)
    written = None if failed else slang.spGetEntryPointCode(request, entry, ctypes.byref(length))
    slang.spDestroyCompileRequest(request)
    found, harmless = [], 0
    for match in DIAGNOSTIC.finditer(said):
        kind, code, message = match.groups()
        if kind == "warning" and int(code) in HARMLESS:
            harmless += 1
            continue
        place = PLACE.match(said, match.end() + 1)
        line = int(place.group(1)) if place else 0
        quoted = f"\n    {source.splitlines()[line - 1].strip()}" if line else ""
        found.append(f"line {line}: {kind} {code}: {message}{quoted}")
    if not found and (failed or not written or length.value < 200):
        found.append(f"nothing came out of it: {said.strip()[:500]}")
    return found, harmless


def main(folder, shaders):
    libraries = [path for path in Path(folder).iterdir() if re.match(r"(lib)?slang-compiler.*\.(so|dll|dylib)", path.name)]
    if len(libraries) != 1:
        sys.exit(f"{folder} has {len(libraries)} libraries of Slang")
    given = json.loads(Path(shaders).read_text())
    labels, texts = [one["label"] for one in given["hlsl"]], [ZEROS.sub(r"(\1[\3][\2])0;", one["text"]) for one in given["hlsl"]]
    if not labels:
        sys.exit("no shaders")
    planted = [KERNEL % parts for parts in PLANTED.values()]
    with multiprocessing.Pool(initializer=start, initargs=(str(libraries[0]),)) as pool:
        judged = pool.map(faults, [SOUND, *planted, *texts], chunksize=4)
    failures = 0
    for found, _ in judged[:1]:
        if found:
            failures += 1
            print("Slang refuses a sound shader: " + found[0], file=sys.stderr)
    for what, (found, _) in zip(PLANTED, judged[1:]):
        if not found:
            failures += 1
            print(f"Slang lets {what} pass", file=sys.stderr)
    for label, (found, _) in zip(labels, judged[1 + len(PLANTED):]):
        if found:
            failures += 1
            print(f"{label}:\n  " + "\n  ".join(found), file=sys.stderr)
    harmless = sum(count for _, count in judged)
    why = "; ".join(HARMLESS.values())
    print(f"HLSL: {len(labels)} variants, {len(PLANTED)} planted faults, {failures} failures; {harmless} warnings that say nothing ({why})")
    print(f"   not in HLSL, for naga has no matrices there, and subgroups are not asked for as others want it: {len(given['without_hlsl'])} variants")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
