"""The default context is this user's alone, whatever a stranger put in its place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import programs
import pytest

from ataraxis import SharedMemoryArray
from ataraxis.errors import AtaraxisError, UnsafeContext
from ataraxis.shm import Context
from ataraxis.shm.beneath import has_openat2, open_beneath, walk_beneath

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be other users and mount"
)
ME, OTHER = 54321, 54322

# Runs as root, and as user ME while it asks for the default context: every mode, owner
# and kind of what may stand in its place. Prints how many were tried, and each answer
# that is not the right one.
SQUAT = f"""
    import ctypes, os, socket, sys
    from pathlib import Path
    from ataraxis.errors import UnsafeContext
    from ataraxis.shm import beneath, context

    root, step, variant = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if variant == "walk":
        beneath.has_openat2 = lambda: False
    context._root = lambda: str(root)
    place = root / "ataraxis-{ME}"
    always = {{0, 0o700, 0o755, 0o770, 0o777, 0o1777, 0o2770, 0o2700, 0o3777, 0o6777}}
    modes = sorted(always | {{*range(0, 4096, step)}})
    libc = ctypes.CDLL(None, use_errno=True)
    is_alone = libc.unshare(0x20000) == 0  # CLONE_NEWNS: mounts of this process alone
    if is_alone:
        libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE

    def directory(): place.mkdir(); return place
    def link():
        target = root / "target"; target.mkdir(exist_ok=True)
        place.symlink_to(target); return target
    def file(): place.touch(); return place
    def fifo(): os.mkfifo(place); return place
    def sock():
        made = socket.socket(socket.AF_UNIX); made.bind(str(place)); made.close()
        return place
    def mount():
        place.mkdir()
        if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, None): raise OSError
        return place
    def bind():
        place.mkdir(); (root / "source").mkdir(exist_ok=True)
        source = os.fsencode(root / "source")
        if libc.mount(source, os.fsencode(place), None, 4096, None): raise OSError
        return place

    def gone(kind):
        if kind in (mount, bind): libc.umount2(os.fsencode(place), 2)
        place.unlink() if not place.is_dir() or place.is_symlink() else place.rmdir()

    kinds = [directory, link, file, fifo, sock]
    kinds += [mount] * is_alone + [bind] * (is_alone and variant == "kernel")
    tried = passed = 0
    for kind in kinds:
        target = kind()
        for owner in ({ME}, {OTHER}, 0):
            os.chown(target, owner, owner)
            for mode in modes:
                os.chmod(target, mode)
                os.seteuid({ME})
                try:
                    context.Context.of(None); answer = "passes"
                except UnsafeContext as error:
                    answer = str(error)
                    if "ATARAXIS_CONTEXT" not in answer or str(place) not in answer:
                        print("no way out:", answer)
                    if kind in (directory, mount) and f"user {{owner}}" not in answer:
                        print("no owner:", answer)
                except BaseException as error:
                    answer = f"raises {{error!r}}"
                finally:
                    os.seteuid(0)
                tried += 1
                is_mine = kind is directory and owner == {ME} and mode & 0o777 == 0o700
                passed += is_mine
                if (answer == "passes") != is_mine or answer.startswith("raises"):
                    print(kind.__name__, owner, oct(mode), answer)
        gone(kind)
    print(tried, passed, len(kinds))
    """


def step() -> int:
    """Every mode at full figures, else some of them."""
    return max(1, round(1 / float(os.environ.get("ATARAXIS_STRESS", "0.02"))))


@needs_root
@pytest.mark.stress
@pytest.mark.parametrize("variant", ["kernel", "walk"])
def test_only_a_private_directory_of_mine_is_the_default_context(
    context: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variant == "kernel" and not has_openat2():
        pytest.skip("this kernel has no openat2")
    monkeypatch.delenv("ATARAXIS_CONTEXT")
    context.chmod(0o711)
    root = context / "root"
    root.mkdir()
    root.chmod(0o1777)
    found = programs.run(SQUAT, root, step(), variant, timeout=500).splitlines()
    print("tried, passed, kinds:", found[-1])
    for left in ("target", "source"):
        if (root / left).exists():
            (root / left).rmdir()
    root.rmdir()
    tried, passed, kinds = map(int, found[-1].split())
    assert found[:-1] == []
    assert kinds >= 5
    assert tried >= 3 * kinds * 4096 / step()
    assert passed >= 2


AS_USER = f"""
    import os, re, subprocess, sys  # while the interpreter's own folder can be read
    import numpy as np
    from ataraxis import SharedMemoryArray
    from ataraxis.errors import UnsafeContext
    from ataraxis.shm import context
    with SharedMemoryArray.create_array("loads every module", np.zeros(1)):
        pass
    del os.environ["ATARAXIS_CONTEXT"]
    context._root = lambda: sys.argv[1]
    os.setgroups([])
    os.setresgid({ME}, {ME}, {ME})
    os.setresuid({ME}, {ME}, {ME})
    """


@needs_root
@pytest.mark.parametrize("mode", [0o3777, 0o2770, 0o777, 0o700])
def test_nothing_is_shared_where_a_stranger_was_first(context: Path, mode: int) -> None:
    context.chmod(0o711)
    root = context / "root"
    root.mkdir()
    root.chmod(0o1777)
    squatted = root / f"ataraxis-{ME}"
    squatted.mkdir()
    os.chown(squatted, OTHER, OTHER)
    squatted.chmod(mode)
    output = programs.run(
        AS_USER
        + """
    try:
        SharedMemoryArray.create_array("patient", np.arange(3.0))
    except UnsafeContext as error:
        print(error)
    """,
        root,
    )
    assert f"user {OTHER}" in output
    assert f"mode {mode:04o}" in output
    assert "ask" in output
    assert "ATARAXIS_CONTEXT=" in output
    assert list(squatted.iterdir()) == []
    squatted.rmdir()
    root.rmdir()


@needs_root
def test_the_way_out_that_the_error_names_works(context: Path) -> None:
    """The directory that its command makes is accepted, by name."""
    context.chmod(0o711)
    root = context / "root"
    root.mkdir()
    root.chmod(0o1777)
    squatted = root / f"ataraxis-{ME}"
    squatted.symlink_to("/")
    output = programs.run(
        AS_USER
        + """
    try:
        SharedMemoryArray.create_array("patient", np.arange(3.0))
    except UnsafeContext as error:
        command = re.search(r'export ATARAXIS_CONTEXT="[^"]*"', str(error))[0]
    made = subprocess.run(
        ["bash", "-c", command + ' && printf %s "$ATARAXIS_CONTEXT"'],
        capture_output=True, text=True, check=True,
    ).stdout
    os.environ["ATARAXIS_CONTEXT"] = made
    with SharedMemoryArray.create_array("patient", np.arange(3.0)) as array:
        print(array[2], made)
    os.rmdir(made)
    """,
        root,
    )
    assert output.startswith(f"2.0 {root}/")
    squatted.unlink()
    root.rmdir()


@needs_root
def test_a_group_context_has_exactly_the_bits_of_the_command(tmp_path: Path) -> None:
    made = Context.create(tmp_path / "group", group=OTHER)
    assert Context.of(made.path).is_shared_with_group
    for mode in (0o3770, 0o2771, 0o2777, 0o3777, 0o6770):
        made.path.chmod(mode)
        os.chown(made.path, ME, OTHER)
        made.path.chmod(mode)
        with pytest.raises(UnsafeContext, match=f"{mode:04o}"):
            Context.of(made.path)


@needs_root
@pytest.mark.parametrize("is_member", [True, False])
def test_a_group_context_is_for_its_group(context: Path, is_member: bool) -> None:
    """A directory of a group that one is not in is a stranger's directory."""
    context.chmod(0o711)
    made = Context.create(context / "group", group=OTHER)
    os.chown(made.path, OTHER, OTHER)
    made.path.chmod(0o2770)
    output = programs.run(
        f"""
    import os, sys
    from ataraxis.errors import UnsafeContext
    from ataraxis.shm import Context
    os.setgroups({[OTHER] if is_member else []})
    os.setresgid({ME}, {ME}, {ME})
    os.setresuid({ME}, {ME}, {ME})
    try:
        print(Context.of(sys.argv[1]).is_shared_with_group)
    except UnsafeContext as error:
        print(error)
    """,
        made.path,
    )
    assert output == "True\n" if is_member else "not safe" in output
    made.path.rmdir()


def test_a_directory_that_is_exchanged_is_looked_at_again(context: Path) -> None:
    """What was safe when the context was opened is checked at each use."""
    where = context / "mine"
    made = Context.create(where)
    where.rename(context / "aside")
    where.mkdir()
    where.chmod(0o777)
    with pytest.raises(UnsafeContext, match="0777"):
        SharedMemoryArray.create_array("x", np.zeros(3), context=made)
    with pytest.raises(UnsafeContext):
        made.names()
    where.rmdir()
    where.symlink_to(context / "aside")
    with pytest.raises(UnsafeContext):
        made.names()
    where.unlink()
    (context / "aside").rmdir()


def test_an_unsafe_context_is_our_error_and_a_permission_error() -> None:
    assert issubclass(UnsafeContext, AtaraxisError)
    assert issubclass(UnsafeContext, PermissionError)


@pytest.mark.parametrize("opens", [open_beneath, walk_beneath])
def test_nothing_outside_of_a_directory_is_opened_below_it(tmp_path: Path, opens):
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside / "deep" / "file").write_text("mine")
    (inside / "absolute").symlink_to(outside / "secret")
    (inside / "relative").symlink_to("../out/secret")
    (inside / "folder").symlink_to("../out")
    (inside / "deep" / "up").symlink_to("../../out")
    (inside / "proc").symlink_to("/proc/self/root")
    directory = os.open(inside, os.O_RDONLY)
    try:
        made = opens(directory, "deep/file")
        assert os.read(made, 10) == b"mine"
        os.close(made)
        for path in (
            "/etc/passwd", "../out/secret", "..", "deep/../../out/secret", "absolute",
            "relative", "folder/secret", "deep/up/secret", "proc/etc/passwd",
            "./../out/secret", "deep//../../out/secret", "none", "deep/none",
        ):  # fmt: skip
            with pytest.raises(OSError, match=r"."):
                opens(directory, path)
    finally:
        os.close(directory)
