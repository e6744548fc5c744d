# What ctest runs. A test file says what is special about it in its first lines:
#
#   tests/unit/test_*.c             /* tsan */            also runs under ThreadSanitizer
#                                   /* timeout: 300 */    seconds instead of 120
#   tests/integration/test_*.py     # build: release      only against an unsanitized server, because
#                                                         it preloads libraries or measures
#                                   # timeout: 300
#                                   # serial: yes         nothing else runs meanwhile
#
# Labels: unit, integration, and beside them tsan or release for those. A tsan build has the tests
# labelled tsan alone.

enable_testing()
find_package(Python3 COMPONENTS Interpreter)
if(NOT Python3_FOUND)
    message(FATAL_ERROR "The tests need Python 3. On Debian: apt-get install python3\n"
                        "or configure with -DNEXUS_BUILD_TESTS=OFF")
endif()

set(test_output ${CMAKE_BINARY_DIR}/tests)

# Reads the opening lines of a test file; they are read again when the file changes.
function(nexus_test_notes file ret_notes)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(STRINGS ${file} notes LIMIT_COUNT 30 REGEX "^(/\\*|#) ?(tsan|timeout|build|serial)")
    set(${ret_notes} "${notes}" PARENT_SCOPE)
endfunction()

function(nexus_test_limits test notes)
    set(timeout 120)
    if(notes MATCHES "timeout: *([0-9]+)")
        set(timeout ${CMAKE_MATCH_1})
    endif()
    # The long ones begin first, so that none is left alone at the end.
    set_tests_properties(${test} PROPERTIES TIMEOUT ${timeout} COST ${timeout})
    if(notes MATCHES "serial: *yes")
        set_tests_properties(${test} PROPERTIES RUN_SERIAL ON)
    endif()
endfunction()

# ---- unit: one executable a file, linked with all of the server, and of nexus-bench, but main ----

set(unit_libraries nexus_storage nexus_common)
if(NOT NEXUS_SANITIZE STREQUAL "tsan")
    list(PREPEND unit_libraries nexus_bench nexus_postmaster ${process_libraries})
endif()

file(GLOB unit_tests CONFIGURE_DEPENDS tests/unit/test_*.c)
foreach(file IN LISTS unit_tests)
    nexus_test_notes(${file} notes)
    set(labels unit)
    if(notes MATCHES "/\\* tsan \\*/")
        list(APPEND labels tsan)
    elseif(NEXUS_SANITIZE STREQUAL "tsan")
        continue()
    endif()

    get_filename_component(name ${file} NAME_WE)
    add_executable(${name} ${file})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${test_output})
    target_include_directories(${name} PRIVATE src tests/unit ${CMAKE_BINARY_DIR}/generated)
    foreach(library IN LISTS unit_libraries)
        if(TARGET ${library})
            target_link_libraries(${name} PRIVATE ${library})
        endif()
    endforeach()
    target_link_libraries(${name} PRIVATE nexus_flags PkgConfig::CHECK)

    string(REGEX REPLACE "^test_" "unit/" test ${name})
    add_test(NAME ${test} COMMAND ${name})
    # Check's own limit, for one function, is 4 seconds: too little for a busy machine.
    set(environment CK_DEFAULT_TIMEOUT=100 CK_VERBOSITY=normal)
    if(NEXUS_SANITIZE STREQUAL "tsan")
        list(APPEND environment CK_FORK=no)
    endif()
    set_tests_properties(${test} PROPERTIES LABELS "${labels}" ENVIRONMENT "${environment}")
    nexus_test_limits(${test} "${notes}")
    list(APPEND unit_targets ${name})
endforeach()
add_custom_target(unit-tests DEPENDS ${unit_targets})

if(NEXUS_SANITIZE STREQUAL "tsan")
    return()
endif()

# ---- libraries that tests preload into real servers; never sanitized ----

file(GLOB preloads CONFIGURE_DEPENDS tests/preload/*.c)
foreach(file IN LISTS preloads)
    get_filename_component(name ${file} NAME_WE)
    add_library(${name} SHARED ${file})
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${test_output})
    target_compile_options(${name} PRIVATE -O2 -g)
    target_link_libraries(${name} PRIVATE nexus_warnings Threads::Threads dl)
endforeach()

# ---- integration: real servers, driven from Python ----

file(GLOB integration_tests CONFIGURE_DEPENDS tests/integration/test_*.py)
foreach(file IN LISTS integration_tests)
    nexus_test_notes(${file} notes)
    set(labels integration)
    if(notes MATCHES "build: *release")
        list(APPEND labels release)
        if(NEXUS_SANITIZE)
            continue()
        endif()
    endif()

    get_filename_component(name ${file} NAME_WE)
    string(REGEX REPLACE "^test_" "integration/" test ${name})
    add_test(NAME ${test} COMMAND ${Python3_EXECUTABLE} -B ${file})
    set(environment NEXUS_BUILD_DIR=${CMAKE_BINARY_DIR} NEXUS_SOURCE_DIR=${CMAKE_SOURCE_DIR}
        NEXUS_SANITIZE=${NEXUS_SANITIZE} PYTHONPATH=${CMAKE_SOURCE_DIR}/tests/lib)
    set_tests_properties(${test} PROPERTIES LABELS "${labels}" ENVIRONMENT "${environment}")
    nexus_test_limits(${test} "${notes}")
endforeach()
