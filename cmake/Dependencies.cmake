# Every library efface leans on, as one imported target each.

# --- LibTorch, from the PyPI wheel that launch/setup installs ---------------------------------------------
set(EFFACE_VENV "" CACHE PATH "the virtual environment that holds the torch wheel")
if(NOT EFFACE_VENV)
  if(DEFINED ENV{EFFACE_VENV})
    set(_venv "$ENV{EFFACE_VENV}")
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(_venv "$ENV{XDG_CACHE_HOME}/efface/venv")
  else()
    set(_venv "$ENV{HOME}/.cache/efface/venv")
  endif()
else()
  set(_venv "${EFFACE_VENV}")
endif()
file(GLOB _torch_roots "${_venv}/lib/python3*/site-packages/torch")
if(NOT _torch_roots)
  message(FATAL_ERROR "LibTorch is not there: no torch wheel in ${_venv}. Run launch/setup first, "
                      "or set EFFACE_VENV to a virtual environment that has torch 2.11.")
endif()
list(GET _torch_roots 0 EFFACE_TORCH_ROOT)
get_filename_component(EFFACE_SITE_PACKAGES ${EFFACE_TORCH_ROOT} DIRECTORY)
message(STATUS "LibTorch: ${EFFACE_TORCH_ROOT}")
file(GLOB EFFACE_WHEEL_LIBRARY_DIRS "${EFFACE_SITE_PACKAGES}/nvidia/*/lib" "${EFFACE_SITE_PACKAGES}/cusparselt/lib")

# --- CUDA and NCCL ------------------------------------------------------------------------------------------
set(EFFACE_WITH_CUDA OFF)
if(NOT EFFACE_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit 12.4 QUIET)
  if(CUDAToolkit_FOUND)
    find_path(EFFACE_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(EFFACE_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
    if(EFFACE_NCCL_INCLUDE AND EFFACE_NCCL_LIBRARY AND EXISTS ${EFFACE_TORCH_ROOT}/lib/libtorch_cuda.so)
      set(EFFACE_WITH_CUDA ON)
    endif()
  endif()
  # A program linked to libtorch_cuda starts only where the wheel's CUDA libraries are installed too.
  if(EFFACE_CUDA STREQUAL "AUTO" AND EFFACE_WITH_CUDA
     AND NOT EXISTS ${EFFACE_SITE_PACKAGES}/nvidia/cusparselt/lib)
    message(STATUS "CUDA toolkit found, but the wheel's CUDA libraries are not in ${_venv}: "
                   "CPU-only program. `launch/setup --cuda` installs them.")
    set(EFFACE_WITH_CUDA OFF)
  endif()
  if(EFFACE_CUDA STREQUAL "ON" AND NOT EFFACE_WITH_CUDA)
    message(FATAL_ERROR "EFFACE_CUDA=ON, but the CUDA toolkit, NCCL or a CUDA build of torch is missing")
  endif()
endif()
message(STATUS "CUDA and NCCL: ${EFFACE_WITH_CUDA}")

add_library(efface_torch INTERFACE)
add_library(efface::torch ALIAS efface_torch)
target_include_directories(efface_torch SYSTEM INTERFACE
  ${EFFACE_TORCH_ROOT}/include ${EFFACE_TORCH_ROOT}/include/torch/csrc/api/include)
target_link_directories(efface_torch INTERFACE ${EFFACE_TORCH_ROOT}/lib)
if(EFFACE_WITH_CUDA)
  # --no-as-needed: nothing refers to libtorch_cuda by symbol, its kernels register themselves when loaded.
  target_link_libraries(efface_torch INTERFACE
    -Wl,--no-as-needed torch_cuda torch_cpu c10_cuda c10 -Wl,--as-needed CUDA::cudart)
  target_compile_definitions(efface_torch INTERFACE EFFACE_WITH_CUDA=1)
  target_include_directories(efface_torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
else()
  target_link_libraries(efface_torch INTERFACE torch_cpu c10)
endif()
target_link_options(efface_torch INTERFACE -Wl,--allow-shlib-undefined)
# OpenMP through torch's own libgomp: two OpenMP runtimes in one process oversubscribe the cores.
file(GLOB _torch_gomp "${EFFACE_TORCH_ROOT}/lib/libgomp*.so*" "${EFFACE_SITE_PACKAGES}/torch.libs/libgomp*.so*")
set(CMAKE_BUILD_RPATH ${EFFACE_TORCH_ROOT}/lib ${EFFACE_WHEEL_LIBRARY_DIRS})
set(CMAKE_INSTALL_RPATH ${CMAKE_BUILD_RPATH})

# --- MPI, HDF5, ScaLAPACK --------------------------------------------------------------------------------------
find_package(MPI REQUIRED COMPONENTS C)
add_library(efface_mpi INTERFACE)
add_library(efface::mpi ALIAS efface_mpi)
target_link_libraries(efface_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(efface_mpi INTERFACE OMPI_SKIP_MPICXX)

set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 REQUIRED COMPONENTS C)
add_library(efface_hdf5 INTERFACE)
add_library(efface::hdf5 ALIAS efface_hdf5)
target_include_directories(efface_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(efface_hdf5 INTERFACE ${HDF5_C_LIBRARIES} efface::mpi)

find_library(EFFACE_SCALAPACK_LIBRARY NAMES scalapack-openmpi scalapack REQUIRED)
find_library(EFFACE_LAPACK_LIBRARY NAMES lapack REQUIRED)
add_library(efface_scalapack INTERFACE)
add_library(efface::scalapack ALIAS efface_scalapack)
# Torch first: libtorch_cpu exports MKL's BLAS and some of its LAPACK, and ScaLAPACK then uses those. The rest of
# LAPACK (the tridiagonal solvers) is the system's.
target_link_libraries(efface_scalapack INTERFACE efface::torch ${EFFACE_SCALAPACK_LIBRARY} ${EFFACE_LAPACK_LIBRARY}
                      efface::mpi)

# --- small ones ------------------------------------------------------------------------------------------------
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(ONIGURUMA REQUIRED IMPORTED_TARGET oniguruma)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
find_package(Threads REQUIRED)
if(EFFACE_TESTS)
  find_package(GTest REQUIRED)
endif()
