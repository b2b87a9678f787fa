"""Which tests are left out of a developer's default run: those that start programs, train, or measure at length."""

from __future__ import annotations

from collections.abc import Iterable

# Every test that uses one of these starts a server, a browser or other processes.
STARTING_FIXTURES = {"app", "browser", "demo", "full_app", "annotating", "lesion_app", "space", "stand_in", "workers"}
# Folders, files and tests by the beginning of their id.
SLOW = (
    "tests/audit/test_audit.py",
    "tests/audit/test_checks.py::test_no_control_character_reaches_the_terminal",
    "tests/audit/test_worst_pairs.py",
    "tests/backbones/test_embeddings.py::test_a_killed_run",
    "tests/backbones/test_patch_tokens.py::test_a_killed_run",
    "tests/browser/",
    "tests/backbones/test_shards.py::test_a_killed_run",
    "tests/bundle/test_build.py::test_a_patch_head_is_tried",
    "tests/bundle/test_build.py::test_each_file_is_decoded_once",
    "tests/bundle/test_build.py::test_options_and_settings_say_the_same",
    "tests/bundle/test_build.py::test_validation_chooses",
    "tests/bundle/test_bundle.py::test_every_family_goes_the_whole_way",
    "tests/bundle/test_finetuned.py",
    "tests/bundle/test_storage.py::test_a_disk_that_takes_no_more",
    "tests/bundle/test_storage.py::test_killed_at_any_moment",
    "tests/cli/test_embed.py::test_shards_then_a_build",
    "tests/cli/test_main.py::test_doctor",
    "tests/demo/test_brain.py",
    "tests/demo/test_bundles.py",
    "tests/demo/test_phantom.py::test_drawn_on_all_cores",
    "tests/demo/test_phantom.py::test_folder_and_data_set_hold_the_same_pictures",
    "tests/demo/test_pictures.py",
    "tests/explain/test_occlusion.py::test_equals_the_plain_version",
    "tests/explain/test_reference_maps.py::test_the_stored_maps",
    "tests/explain/test_rise.py::test_equals_the_plain_version",
    "tests/explain/test_registry.py::test_each_model_is_offered_what_it_can_do",
    "tests/explain/test_vit_cx.py::test_agrees_with_the_authors_maps",
    "tests/explain/test_vit_cx.py::test_equals_the_plain_version_with_a_real",
    "tests/explain/test_vit_cx.py::test_memory_does_not_grow",
    "tests/bundle/test_localize.py",
    "tests/heads/test_patch.py::test_build_save_load_analyse",
    "tests/heads/test_patch.py::test_fitting_is_seeded",
    "tests/heads/test_stored_heads.py",
    "tests/hub/",
    "tests/images/test_odd_files.py::test_a_bomb",
    "tests/images/test_safe_reader.py",
    "tests/library/test_library.py::test_same_cases_scores_and_order_as_numpy",
    "tests/library/test_server_store.py::test_killed_at_any_moment",
    "tests/library/test_shard_store.py::test_killed_at_any_moment",
    "tests/library/test_shard_store.py::test_the_graph",
    "tests/library/test_shard_store.py::test_two_processes",
    "tests/metrics/test_reliability.py::test_the_interval_holds",
    "tests/pretrain/test_finetune.py",
    "tests/pretrain/test_runner.py",
    "tests/scripts/test_agreement.py::test_a_run",
    "tests/scripts/test_build_memory.py",
    "tests/scripts/test_choices.py",
    "tests/scripts/test_lesion_pointing.py",
    "tests/scripts/test_localizer.py",
    "tests/scripts/test_query.py::test_what_cannot_run",
    "tests/scripts/test_scripts.py",
    "tests/study/test_report.py",
    "tests/study/test_rows.py::test_the_bootstrap_interval_covers",
    "tests/study/test_study.py",
    "tests/study/test_tuned_efficiency.py",
    "tests/test_readme.py",
    "tests/test_runtime.py::test_large_tensors",
    "tests/test_warm.py",
    "tests/web/test_annotator.py",
    "tests/web/test_batcher.py",
    "tests/web/test_guard.py::test_the_queue_cannot_be_walked_round",
    "tests/web/test_page.py",
    "tests/web/test_traffic.py",
    "tests/web/test_waiting.py::test_a_start",
)


def is_slow(test_id: str, fixtures: Iterable[str]) -> bool:
    """Whether a test is left out by default."""
    return test_id.startswith(SLOW) or not STARTING_FIXTURES.isdisjoint(fixtures)
