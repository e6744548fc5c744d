# Finds what Nexus is built with. All that is missing is told in one message, by the names of the
# Debian packages. Imported targets carry their headers as system headers.

set(missing_packages)
set(missing_text "")

# Notes a missing dependency: what it is, and the Debian package that has it.
macro(nexus_missing what debian_package)
    list(APPEND missing_packages ${debian_package})
    string(APPEND missing_text "  ${what}: package ${debian_package}\n")
endmacro()

# nexus_require(<PREFIX> <Debian package> <pkg-config module>...) -> target PkgConfig::<PREFIX>
macro(nexus_require prefix debian_package)
    set(${prefix}_MODULES ${ARGN})
    pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${ARGN})
    if(NOT ${prefix}_FOUND)
        list(JOIN ${prefix}_MODULES " " modules)
        nexus_missing("${modules}" ${debian_package})
    endif()
endmacro()

find_package(PkgConfig QUIET)
if(NOT PKG_CONFIG_FOUND)
    message(FATAL_ERROR "pkg-config is missing. On Debian: apt-get install pkg-config")
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

nexus_require(LIBEVENT libevent-dev libevent_core libevent_extra libevent_openssl)
nexus_require(OPENSSL libssl-dev openssl>=3)
nexus_require(LMDB liblmdb-dev lmdb)
nexus_require(LIBDEFLATE libdeflate-dev libdeflate)
nexus_require(JSONC libjson-c-dev json-c)
nexus_require(INIH libinih-dev inih)
nexus_require(UUID uuid-dev uuid)
nexus_require(LIBBSD libbsd-dev libbsd)
nexus_require(LIBARCHIVE libarchive-dev libarchive)
nexus_require(ZSTD libzstd-dev libzstd)
nexus_require(XXHASH libxxhash-dev libxxhash) # its header alone

# http_parser comes without a .pc file.
find_path(HTTP_PARSER_INCLUDE_DIR http_parser.h)
find_library(HTTP_PARSER_LIBRARY http_parser)
mark_as_advanced(HTTP_PARSER_INCLUDE_DIR HTTP_PARSER_LIBRARY)
if(HTTP_PARSER_INCLUDE_DIR AND HTTP_PARSER_LIBRARY)
    add_library(Nexus::HttpParser UNKNOWN IMPORTED)
    set_target_properties(Nexus::HttpParser PROPERTIES
                          IMPORTED_LOCATION ${HTTP_PARSER_LIBRARY}
                          INTERFACE_INCLUDE_DIRECTORIES ${HTTP_PARSER_INCLUDE_DIR})
else()
    nexus_missing("http_parser" libhttp-parser-dev)
endif()

# The tests alone need Check: without it they are left out, unless they are asked for.
pkg_check_modules(CHECK QUIET IMPORTED_TARGET check)
if(NEXUS_BUILD_TESTS AND NOT CHECK_FOUND)
    nexus_missing("check (or configure with -DNEXUS_BUILD_TESTS=OFF)" check)
elseif(NOT CHECK_FOUND)
    message(STATUS "Check is missing (package check): the tests are not built")
    set(CHECK_FOUND OFF)
endif()

if(missing_packages)
    list(REMOVE_DUPLICATES missing_packages)
    list(JOIN missing_packages " " missing_line)
    message(FATAL_ERROR "Nexus cannot be built, these are missing:\n${missing_text}"
                        "On Debian: apt-get install ${missing_line}\n"
                        "or, for all of it: scripts/install-deps.sh build test")
endif()
