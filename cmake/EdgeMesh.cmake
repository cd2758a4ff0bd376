# em_module, em_test, em_fuzz: one library a folder, one test binary a library.

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(em_flags INTERFACE)
target_compile_options(em_flags INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough -Wno-missing-field-initializers
  -Werror=unused-result -Werror=return-type -Werror=switch -fno-omit-frame-pointer)
target_compile_definitions(em_flags INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
target_include_directories(em_flags INTERFACE ${CMAKE_SOURCE_DIR})
if(EDGEMESH_SANITIZE)
  target_compile_options(em_flags INTERFACE -fsanitize=${EDGEMESH_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(em_flags INTERFACE -fsanitize=${EDGEMESH_SANITIZE})
endif()
if(EDGEMESH_FUZZ)
  target_compile_options(em_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# em_module(em_http DEPS em_io ... PRIVATE_DEPS third-party ...): every *.cc of the folder.
function(em_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;PRIVATE_DEPS" ${ARGN})
  foreach(dep IN LISTS ARG_DEPS)
    if(NOT TARGET ${dep})
      message(FATAL_ERROR "${name} depends on ${dep}, which stands below it in the layers")
    endif()
  endforeach()
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(NOT sources)
    file(WRITE ${CMAKE_BINARY_DIR}/empty.cc "")
    set(sources ${CMAKE_BINARY_DIR}/empty.cc)
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC em_flags ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# em_test(base DEPS em_base): tests/unit/<...>/*.cc of the current folder as one binary and one ctest.
function(em_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  if(NOT sources)
    return()
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${ARG_LABEL}_${name} ${sources})
  target_link_libraries(${ARG_LABEL}_${name} PRIVATE em_flags em_test_support ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  # What is run once need not be fast: a quarter of the time to compile it.
  if(NOT EDGEMESH_SANITIZE)
    target_compile_options(${ARG_LABEL}_${name} PRIVATE $<$<CONFIG:Debug>:-O0>)
  endif()
  target_compile_definitions(${ARG_LABEL}_${name} PRIVATE EDGEMESH_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME ${ARG_LABEL}.${name} COMMAND ${ARG_LABEL}_${name})
  # A case that was skipped has tested nothing: that is a failure.
  set_tests_properties(${ARG_LABEL}.${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
    FAIL_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
endfunction()

# em_fuzz(http1 DEPS em_http): tests/fuzz/<name>_fuzz.cc with LLVMFuzzerTestOneInput. With the fuzz
# preset a libFuzzer binary; in every build a binary that replays tests/fuzz/corpus/<name>.
function(em_fuzz name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(replay_${name} ${name}_fuzz.cc replay_main.cc)
  target_link_libraries(replay_${name} PRIVATE em_flags ${ARG_DEPS})
  add_test(NAME fuzz.${name} COMMAND replay_${name} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 120)
  if(EDGEMESH_FUZZ)
    add_executable(fuzz_${name} ${name}_fuzz.cc)
    target_link_libraries(fuzz_${name} PRIVATE em_flags ${ARG_DEPS})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  endif()
endfunction()
