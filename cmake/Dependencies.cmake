# Third-party libraries, all from the distribution. Each is linked privately by one folder.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tl-expected REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(GTest REQUIRED)
find_package(Protobuf REQUIRED)

foreach(lib IN ITEMS
    uv:libuv nghttp2:libnghttp2 cares:libcares sqlite3:sqlite3 wslay:libwslay mnl:libmnl
    nice:nice gnutls:gnutls ngtcp2:libngtcp2 ngtcp2_gnutls:libngtcp2_crypto_gnutls nghttp3:libnghttp3
    re2:re2 z:zlib zstd:libzstd)
  string(REPLACE ":" ";" pair ${lib})
  list(GET pair 0 target)
  list(GET pair 1 module)
  pkg_check_modules(${target} IMPORTED_TARGET GLOBAL ${module})
  if(NOT TARGET PkgConfig::${target})
    find_library(${target}_path NAMES ${target} REQUIRED)
    add_library(PkgConfig::${target} INTERFACE IMPORTED GLOBAL)
    set_target_properties(PkgConfig::${target} PROPERTIES INTERFACE_LINK_LIBRARIES ${${target}_path})
  endif()
endforeach()

# Tests only: another parser, to compare ours with.
find_library(HTTP_PARSER_LIBRARY http_parser REQUIRED)
