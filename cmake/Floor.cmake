# A floor is one library that gathers its rooms; a floor sees only the floors below it. Each room is a small
# static library of its own, so that a test links no more than what it tests. tests/architecture checks that
# no #include goes up.

add_library(efface_options INTERFACE)
target_compile_options(efface_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Werror;-Wno-unused-parameter>)
target_include_directories(efface_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(efface_options INTERFACE EFFACE_VERSION="${PROJECT_VERSION}")
if(EFFACE_SANITIZE)
  target_compile_options(efface_options INTERFACE -fsanitize=${EFFACE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(efface_options INTERFACE -fsanitize=${EFFACE_SANITIZE})
endif()

# The one precompiled header (ATen and autograd), built once and reused by every room.
if(EFFACE_PCH)
  file(WRITE ${PROJECT_BINARY_DIR}/pch.cpp "")
  add_library(efface_pch STATIC ${PROJECT_BINARY_DIR}/pch.cpp)
  target_link_libraries(efface_pch PUBLIC efface_options efface::torch)
  target_precompile_headers(efface_pch PUBLIC
    <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/autograd.h>
    <algorithm> <cstdint> <filesystem> <functional> <map> <memory> <optional> <string> <vector>)
endif()

# efface_room(NAME floor_room [NO_TORCH] SOURCES ... LINKS ...)
function(efface_room name)
  cmake_parse_arguments(ROOM "NO_TORCH" "" "SOURCES;LINKS" ${ARGN})
  if(NOT ROOM_SOURCES)
    add_library(efface_${name} INTERFACE)
    target_link_libraries(efface_${name} INTERFACE efface_options ${ROOM_LINKS})
    return()
  endif()
  add_library(efface_${name} STATIC ${ROOM_SOURCES})
  target_link_libraries(efface_${name} PUBLIC efface_options ${ROOM_LINKS})
  if(NOT ROOM_NO_TORCH)
    target_link_libraries(efface_${name} PUBLIC efface::torch)
    if(EFFACE_PCH)
      target_precompile_headers(efface_${name} REUSE_FROM efface_pch)
    endif()
  endif()
endfunction()

# efface_floor(name rooms...): the floor's one target.
function(efface_floor name)
  add_library(efface_floor_${name} INTERFACE)
  target_link_libraries(efface_floor_${name} INTERFACE ${ARGN})
endfunction()
