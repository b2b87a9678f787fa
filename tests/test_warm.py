"""Programs that start warm are processes like any other."""

import os
import signal
import subprocess
import sys

import pytest

from tests import warm

TELL = "import os, sys; print(sys.argv[1:], os.environ.get('COLOR'), os.getcwd()); sys.exit('no')"


def test_a_program_has_its_own_arguments_environment_folder_output_and_end(tmp_path):
    given = {"env": {"COLOR": "red"}, "cwd": tmp_path}
    done = warm.run(["-c", TELL, "one", 2], **given)
    assert (done.stdout, done.stderr, done.returncode) == (f"['one', '2'] red {tmp_path}\n", "no\n", 1)
    (tmp_path / "tell.py").write_text(TELL)
    plain = subprocess.run([sys.executable, "tell.py", "one", "2"], capture_output=True, text=True, **given)
    script = warm.run(["tell.py", "one", 2], **given)
    assert (script.stdout, script.stderr, script.returncode) == (plain.stdout, plain.stderr, plain.returncode)
    module = warm.run(["-m", "tell", "one", 2], **given)
    assert (module.stdout, module.returncode) == (plain.stdout, 1)


def test_an_error_is_told_and_ends_it():
    done = warm.run(["-c", "raise ValueError('odd')"])
    assert done.returncode == 1 and done.stderr.endswith("ValueError: odd\n")
    assert warm.run(["-c", "raise KeyboardInterrupt"]).returncode == -signal.SIGINT


def test_it_is_killed_asked_to_end_and_waited_for():
    for send, code in (("kill", -signal.SIGKILL), ("terminate", -signal.SIGTERM)):
        process = warm.start(["-c", "import time; print('here', flush=True); time.sleep(600)"], subprocess.PIPE)
        assert process.stdout.readline() == "here\n" and process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        getattr(process, send)()
        assert process.wait(60) == process.poll() == code


def test_libraries_are_there_already_and_only_there():
    told = "import sys; print('torch' in sys.modules)"
    assert (warm.run(["-c", told]).stdout, warm.run_fresh(["-c", told]).stdout) == ("True\n", "False\n")


def test_what_visitors_upload_lies_where_a_fresh_program_would_put_it(tmp_path):
    told = "from gradio import mcp, route_utils; print(mcp.DEFAULT_TEMP_DIR, route_utils.DEFAULT_TEMP_DIR)"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRADIO_TEMP")}
    for given in ({"TMPDIR": str(tmp_path)}, {"GRADIO_TEMP_DIR": str(tmp_path / "own")}):
        env = environment | given
        assert warm.run(["-c", told], env).stdout == warm.run_fresh(["-c", told], env).stdout != ""
