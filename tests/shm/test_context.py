"""Contexts: which directories are safe, who is let in, what they list."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import programs
import pytest

from ataraxis import SharedMemoryArray, attach
from ataraxis.shm import Context

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root can be other users")
OTHER, GROUP = 54321, 54322


def test_the_default_context_is_the_one_in_the_environment(context: Path) -> None:
    assert Context.of(None).path == context
    with SharedMemoryArray.create_array("x", np.zeros(3)) as array:
        assert array.context.path == context
        assert (context / "x").is_file()


def test_without_the_environment_it_is_a_directory_of_this_user_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("ATARAXIS_CONTEXT")
        else:
            monkeypatch.setenv("ATARAXIS_CONTEXT", value)
        path = Context.of(None).path
        assert path.name == f"ataraxis-{os.geteuid()}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_context_lists_its_segments_by_name(context: Path) -> None:
    here = Context.of(None)
    assert here.names() == []
    with (
        SharedMemoryArray.create_array("b", np.zeros(3)),
        SharedMemoryArray.create_array("a", np.zeros(3)),
    ):
        assert here.names() == list(here) == ["a", "b"]
        (context / ".hidden").touch()
        assert here.names() == ["a", "b"]
        (context / ".hidden").unlink()


def test_contexts_are_isolated_worlds(context: Path, tmp_path: Path) -> None:
    other = Context.create(tmp_path / "other")
    with (
        SharedMemoryArray.create_array("x", np.arange(3)),
        SharedMemoryArray.create_array("x", np.arange(5), context=other),
    ):
        assert len(attach("x")) == 3
        assert len(attach("x", context=other)) == 5
        assert len(attach("x", context=str(other.path))) == 5
        assert len(attach("x", context=other.path)) == 5


def test_a_context_is_made_for_this_user_alone(tmp_path: Path) -> None:
    made = Context.create(tmp_path / "new")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    assert not made.is_shared_with_group
    with pytest.raises(FileExistsError):
        Context.create(tmp_path / "new")


def test_a_context_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for where in (tmp_path / "none", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match="none"):
            SharedMemoryArray.create_array("x", np.zeros(3), context=where)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        SharedMemoryArray.create_array("x", np.zeros(3), context=tmp_path / "file")


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o770, 0o720])
def test_a_directory_in_which_others_may_write_is_refused(
    mode: int, tmp_path: Path
) -> None:
    unsafe = tmp_path / "unsafe"
    unsafe.mkdir()
    unsafe.chmod(mode)
    for use in (
        lambda: SharedMemoryArray.create_array("x", np.zeros(3), context=unsafe),
        lambda: attach("x", context=unsafe),
        lambda: Context.of(unsafe),
    ):
        with pytest.raises(PermissionError, match="unsafe"):
            use()
    assert list(unsafe.iterdir()) == []


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o700)
    os.chown(foreign, OTHER, OTHER)
    with pytest.raises(PermissionError, match=str(OTHER)):
        SharedMemoryArray.create_array("x", np.zeros(3), context=foreign)
    assert list(foreign.iterdir()) == []


def test_a_link_to_a_context_is_that_context(context: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(context)
    with SharedMemoryArray.create_array("x", np.arange(3), context=link):
        assert attach("x")[2] == 2


def test_a_link_to_an_unsafe_directory_is_refused(tmp_path: Path) -> None:
    unsafe, link = tmp_path / "unsafe", tmp_path / "link"
    unsafe.mkdir()
    unsafe.chmod(0o777)
    link.symlink_to(unsafe)
    with pytest.raises(PermissionError):
        Context.of(link)


def test_arrays_are_this_users_alone_whatever_the_umask(context: Path) -> None:
    before = os.umask(0)
    try:
        with SharedMemoryArray.create_array("x", np.zeros(3)):
            assert stat.S_IMODE((context / "x").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
def test_mode_sets_the_permissions(mode: int, context: Path) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3), mode=mode):
        assert stat.S_IMODE((context / "x").stat().st_mode) == mode
        assert attach("x")[0] == 0


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o400, 0, 0o4600, -1])
def test_a_mode_that_shuts_out_the_owner_or_lets_in_all_is_refused(
    mode: int, context: Path
) -> None:
    with pytest.raises(ValueError, match="mode"):
        SharedMemoryArray.create_array("x", np.zeros(3), mode=mode)
    assert list(context.iterdir()) == []


@needs_root
def test_group_sets_the_group(context: Path) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3), mode=0o660, group=GROUP):
        status = (context / "x").stat()
        assert status.st_gid == GROUP
        assert stat.S_IMODE(status.st_mode) == 0o660


def test_a_group_that_does_not_exist_is_refused(context: Path) -> None:
    with pytest.raises(LookupError, match="no such people"):
        SharedMemoryArray.create_array("x", np.zeros(3), group="no such people")
    assert list(context.iterdir()) == []


AS_OTHER = f"""
    import os, sys
    import numpy as np
    from ataraxis import SharedMemoryArray, attach
    where = sys.argv[1]
    with SharedMemoryArray.create_array("loads every module", np.zeros(1)):
        pass
    os.setgroups([int(g) for g in sys.argv[2:]])
    os.setegid({OTHER})
    os.seteuid({OTHER})
    """


@needs_root
def test_a_group_context_lets_other_users_of_the_group_take_part(
    context: Path,
) -> None:
    """Two containers with different users share an array."""
    context.chmod(0o711)
    group = Context.create(context / "group", group=GROUP)
    assert group.is_shared_with_group
    assert stat.S_IMODE(group.path.stat().st_mode) == 0o2770
    with SharedMemoryArray.create_array("x", np.zeros(3), context=group) as array:
        status = (group.path / "x").stat()
        assert status.st_gid == GROUP
        assert stat.S_IMODE(status.st_mode) == 0o660
        programs.run(
            AS_OTHER
            + """
    array = attach("x", context=where)
    array[1] = 5
    own = SharedMemoryArray.create_array("own", np.arange(3), context=where)
    assert os.stat(where + "/own").st_mode & 0o777 == 0o660
    array.disconnect()
    own.destroy()
    """,
            group.path,
            GROUP,
        )
        assert array[1] == 5
    group.path.rmdir()


@needs_root
def test_another_users_array_is_refused_outside_a_group_context(
    context: Path,
) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3)):
        programs.run(
            AS_OTHER
            + """
    make = SharedMemoryArray.create_array
    for use in (lambda: attach("x", context=where),
                lambda: make("y", np.zeros(3), context=where)):
        try:
            use()
        except PermissionError:
            pass
        else:
            raise SystemExit("was let in")
    """,
            context,
        )


@needs_root
def test_a_file_that_another_user_owns_is_refused(context: Path) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3)):
        os.chown(context / "x", OTHER, OTHER)
        code = """
            from ataraxis import attach
            try:
                attach("x")
            except PermissionError as error:
                print(error)
            """
        assert str(OTHER) in programs.run(code)
        os.chown(context / "x", 0, 0)


def test_a_file_that_everybody_may_write_is_refused(context: Path) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(3)):
        (context / "x").chmod(0o666)
        with pytest.raises(PermissionError):
            attach("x")
