# The fuzz targets (tests/fuzz): one executable a file fuzz_*.c, with clang's libFuzzer, or with AFL++ when its compiler is
# used. ctest runs each on its seeds, on what was found before (tests/fuzz/regressions) and for a moment on new inputs;
# scripts/fuzz.sh runs them for long.

enable_testing()
set(fuzz_output ${CMAKE_BINARY_DIR}/fuzz)

function(nexus_fuzz_executable name)
    add_executable(${name} ${ARGN})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${fuzz_output})
    target_include_directories(${name} PRIVATE src tests/fuzz ${CMAKE_BINARY_DIR}/generated)
    target_link_libraries(${name} PRIVATE nexus_http nexus_peers nexus_snapshot nexus_storage nexus_common nexus_flags)
endfunction()

nexus_fuzz_executable(make_seeds tests/fuzz/make_seeds.c tests/fuzz/seed_files.c)
add_custom_command(OUTPUT ${fuzz_output}/seeds COMMAND ${CMAKE_COMMAND} -E make_directory ${fuzz_output}/seeds
                   COMMAND make_seeds ${fuzz_output}/seeds DEPENDS make_seeds)
add_custom_target(fuzz-seeds ALL DEPENDS ${fuzz_output}/seeds)

file(GLOB fuzz_targets CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(file IN LISTS fuzz_targets)
    get_filename_component(name ${file} NAME_WE)
    nexus_fuzz_executable(${name} ${file})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    string(REGEX REPLACE "^fuzz_" "" short ${name})
    add_test(NAME fuzz/${short} COMMAND ${CMAKE_SOURCE_DIR}/scripts/fuzz.sh --smoke ${short})
    set_tests_properties(fuzz/${short} PROPERTIES LABELS fuzz TIMEOUT 120
                                                  ENVIRONMENT NEXUS_FUZZ_DIR=${fuzz_output})
endforeach()
