//! What the core types promise, on every backend: one test for each promise, instantiated for each
//! device. A new backend joins with one line at the end of this file.

mod allocation;
mod buffers;
mod encoder;
mod failure;
mod golden;
mod gpu;
mod graph;
mod guards;
mod host_access;
mod lifetime;
mod metal_calls;
mod opening;
mod pool;
mod registry;
mod residency;
mod subject;
mod support;
mod threads;
mod types;

macro_rules! tests {
    ($device:ident; $($module:ident: [$($test:ident),* $(,)?];)*) => {
        $(mod $module {
            $(#[test]
            fn $test() {
                if let Some(subject) = crate::subject::$device() {
                    crate::$module::$test(&subject);
                }
            })*
        })*
    };
}

macro_rules! conformance {
    ($device:ident) => {
        mod $device {
            tests! {
                $device;
                allocation: [
                    new_memory_is_zero_and_exact,
                    refuses_no_bytes_and_shapes_that_do_not_fit,
                    refuses_what_is_past_the_limit,
                    counts_what_is_in_use,
                    a_refused_request_harms_no_other,
                    typed_constructors_check_their_shapes,
                    files_are_mapped_read_only,
                    files_that_cannot_be_mapped_are_named,
                    private_storage_moves_bytes_only_explicitly,
                ];
                buffers: [
                    foreign_memory_is_used_in_place,
                    foreign_memory_needs_a_place_and_a_size,
                    views_add_their_offsets,
                    views_outside_the_parent_panic_or_err,
                    kernels_see_only_the_view,
                    views_may_start_anywhere_but_kernels_need_alignment,
                    reshaped_handles_alias,
                    reshaping_keeps_the_element_count,
                    mapped_files_are_seen_as_tensors,
                    element_counts,
                    lengths_and_offsets,
                    the_base_pointer_is_the_allocation,
                ];
                encoder: [
                    nothing_runs_before_commit,
                    a_dropped_encoder_abandons_its_commands,
                    encoding_after_commit_is_an_error,
                    a_failed_commit_abandons_the_commands,
                    commands_see_what_earlier_ones_wrote,
                    a_written_buffer_is_bound_once,
                    copies_and_fills,
                    groups_are_balanced,
                    labels_and_numbers_identify_submissions,
                    objects_of_another_device_are_refused,
                    launches_without_work_do_nothing,
                    submissions_in_flight_are_bounded,
                    timing_covers_the_work,
                ];
                failure: [
                    an_injected_failure_surfaces_at_wait_with_the_label,
                    failing_and_panicking_kernels_fail_their_submission,
                    poisoned_bytes_are_refused_until_written,
                    writing_heals_exactly_what_was_written,
                    a_refused_guard_heals_nothing,
                    queued_work_that_depends_on_a_failure_fails_too,
                    work_that_overwrites_a_failure_heals_it,
                    a_failing_replay_can_be_repeated,
                    kernels_cannot_write_what_they_declare_as_read,
                    a_panic_leaves_the_threads_in_step,
                ];
                graph: [
                    values_come_from_buffers,
                    a_graph_keeps_its_buffers,
                    a_guard_refuses_a_replay_and_the_graph_stays_usable,
                    replays_run_in_order_with_other_work,
                    a_graph_may_be_dropped_in_flight,
                ];
                guards: [
                    guards_exclude_each_other_by_range,
                    a_guard_refuses_conflicting_submissions,
                    submissions_refuse_guards,
                    a_guard_outlives_its_buffer,
                    what_a_guard_writes_reaches_the_device,
                    a_submission_beside_a_guard_loses_nothing,
                    host_and_device_writes_to_parts_are_merged,
                    empty_views_conflict_with_nothing,
                ];
                host_access: [
                    slices_are_exactly_the_logical_bytes,
                    slices_need_a_fitting_type,
                    slices_are_refused_in_flight,
                    bytes_move_in_and_out,
                    moves_are_refused_in_flight_and_while_held,
                ];
                lifetime: [
                    an_owner_is_dropped_once_after_the_last_use,
                    storage_dropped_in_flight_is_freed_afterwards,
                    a_kernel_may_hold_the_last_handle_of_its_device,
                    an_owner_may_hold_a_buffer_of_its_device,
                    waiting_gives_back_what_kernels_hold,
                ];
                pool: [
                    blocks_are_reused_by_size_class,
                    handles_have_the_length_asked_for,
                    memory_in_flight_is_not_handed_out,
                    live_handles_prevent_release_and_reset,
                    recorded_commands_and_graphs_prevent_release,
                    reset_takes_everything_back,
                    the_limit_evicts_the_least_recently_released,
                    trim_and_clear,
                    batches_are_all_or_nothing,
                    a_pool_serves_one_device,
                    scratch_comes_back_by_itself,
                    a_reused_block_forgets_failures,
                ];
                registry: [
                    unknown_names_get_the_nearest,
                    names_are_unique,
                    a_missing_implementation_is_a_compile_error,
                    kernels_are_shared_between_threads,
                ];
                residency: [
                    a_batch_costs_one_commit,
                    the_last_handle_removes_once,
                    a_buffer_dropped_in_flight_leaves_when_the_work_is_done,
                    replays_commit_what_is_staged,
                    scratch_and_foreign_memory_never_join,
                    registering_is_idempotent,
                ];
                threads: [
                    many_threads_share_a_device,
                    guards_and_submissions_of_many_threads_exclude_each_other,
                ];
            }
        }
    };
}

conformance!(cpu_one_thread);
conformance!(cpu_threads);
conformance!(trace_unified);
conformance!(trace_apart);
conformance!(metal_recorder);
conformance!(metal);
conformance!(cuda);
