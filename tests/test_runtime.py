import platform
import subprocess
import sys

import pytest

from medssl.runtime import reuse_freed_memory

# How many blocks glibc has taken straight from the kernel before and after a 64 MB tensor (mallinfo2(3), field hblks).
COUNT = """
import ctypes, sys, torch
class Info(ctypes.Structure):
    _fields_ = [(f"f{i}", ctypes.c_size_t) for i in range(10)]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
if sys.argv[1] == "kept":
    from medssl.runtime import reuse_freed_memory
    assert reuse_freed_memory()
before = libc.mallinfo2().f3
tensor = torch.ones(16 << 20)
print(libc.mallinfo2().f3 - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_tensors_no_longer_come_straight_from_the_kernel():
    def taken(mode):
        return int(
            subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, check=True).stdout
        )

    assert taken("plain") == 1
    assert taken("kept") == 0


def test_it_says_whether_it_was_done():
    assert reuse_freed_memory() == (platform.libc_ver()[0] == "glibc")
