# Compiler and linker flags. nexus_warnings: for everything compiled here. nexus_flags: those, and
# the code generation, hardening and sanitizers of the server and its tests.

include(CheckCCompilerFlag)

# Assertions guard data: they stay on in every build.
foreach(config IN ITEMS RELEASE RELWITHDEBINFO MINSIZEREL)
    string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${config} "${CMAKE_C_FLAGS_${config}}")
endforeach()
string(REPLACE "-O3" "-O2" CMAKE_C_FLAGS_RELEASE "${CMAKE_C_FLAGS_RELEASE}")

add_library(nexus_warnings INTERFACE)
target_compile_definitions(nexus_warnings INTERFACE _GNU_SOURCE)
target_compile_options(
    nexus_warnings
    INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual
              -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wnested-externs
              -Wredundant-decls -Wpointer-arith -Wwrite-strings -Wundef -Wvla -Wformat=2
              -Wswitch-enum -Wimplicit-fallthrough -Wnull-dereference -Wdouble-promotion
              -Wfloat-equal -Wdate-time -Winit-self)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(
        nexus_warnings
        INTERFACE -Wcast-align=strict -Wlogical-op -Wduplicated-cond -Wduplicated-branches
                  -Wformat-signedness -Wformat-overflow=2 -Wformat-truncation=1
                  -Wstringop-overflow=4 -Wtrampolines -Walloc-zero -Wjump-misses-init
                  -Wbad-function-cast -Wsuggest-attribute=noreturn)
elseif(CMAKE_C_COMPILER_ID MATCHES "Clang")
    target_compile_options(
        nexus_warnings
        INTERFACE -Wcast-align -Wmissing-variable-declarations -Wconditional-uninitialized -Wcomma
                  -Wassign-enum -Wunreachable-code-aggressive -Watomic-implicit-seq-cst
                  -Wshift-sign-overflow -Wformat-type-confusion)
endif()
if(NEXUS_TEST_POINTS)
    target_compile_definitions(nexus_warnings INTERFACE NEXUS_TEST_POINTS)
endif()
if(NEXUS_WERROR)
    target_compile_options(nexus_warnings INTERFACE -Werror)
endif()

add_library(nexus_flags INTERFACE)
target_link_libraries(nexus_flags INTERFACE nexus_warnings)
target_compile_options(nexus_flags INTERFACE -g3 -fno-omit-frame-pointer -fno-strict-aliasing
                                             -fstack-protector-strong -fPIE)
target_link_options(nexus_flags INTERFACE -pie LINKER:-z,relro,-z,now LINKER:-z,noexecstack
                    LINKER:--as-needed)

# Not every processor has these.
foreach(flag IN ITEMS -fstack-clash-protection -fcf-protection=full)
    string(MAKE_C_IDENTIFIER "NEXUS_HAVE${flag}" have)
    check_c_compiler_flag(${flag} ${have})
    if(${have})
        target_compile_options(nexus_flags INTERFACE ${flag})
    endif()
endforeach()

if(NEXUS_SANITIZE STREQUAL "")
    # Both need an optimised build. Zeroed locals would hide bugs from the sanitizers.
    set(optimised $<NOT:$<CONFIG:Debug>>)
    target_compile_options(nexus_flags
                           INTERFACE $<${optimised}:-U_FORTIFY_SOURCE> $<${optimised}:-D_FORTIFY_SOURCE=3>)
    if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
        target_compile_options(nexus_flags
                               INTERFACE $<${optimised}:-ftrivial-auto-var-init=zero>)
    endif()
elseif(NEXUS_SANITIZE STREQUAL "asan")
    set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
elseif(NEXUS_SANITIZE STREQUAL "fuzz")
    set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
    target_compile_options(nexus_flags INTERFACE -fsanitize=fuzzer-no-link)
elseif(NEXUS_SANITIZE STREQUAL "tsan")
    # It doesn't model fences; what they order here is atomic itself, which it does.
    set(sanitizers -fsanitize=thread $<$<C_COMPILER_ID:GNU>:-Wno-tsan>)
else()
    message(FATAL_ERROR "NEXUS_SANITIZE is \"${NEXUS_SANITIZE}\": expected asan, tsan, fuzz or nothing")
endif()
if(sanitizers)
    target_compile_options(nexus_flags INTERFACE -O1 -U_FORTIFY_SOURCE ${sanitizers})
    target_link_options(nexus_flags INTERFACE ${sanitizers})
endif()
