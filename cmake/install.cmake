# What `cmake --install` gives: header, both libraries, CMake package, pkg-config file, command, manual page, models.
# Everything is found relative to where it lies, so --prefix may differ from the one configured.

# The manual page comes from the table that the command itself reads.
if(NOT CMAKE_CROSSCOMPILING)
  add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/genvid.1
    COMMAND genvid help --man > ${PROJECT_BINARY_DIR}/genvid.1
    DEPENDS genvid COMMENT "genvid.1 from genvid help --man" VERBATIM)
  add_custom_target(man ALL DEPENDS ${PROJECT_BINARY_DIR}/genvid.1)
  install(FILES ${PROJECT_BINARY_DIR}/genvid.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()

file(RELATIVE_PATH GV_LIB_FROM_BIN /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
set_target_properties(genvid PROPERTIES INSTALL_RPATH "$ORIGIN/${GV_LIB_FROM_BIN}")
install(TARGETS genvid RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS genvid_shared EXPORT genvid-shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(GV_HAVE_CUDA)
  install(TARGETS genvid_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}) # found beside the library: core/module.h
endif()
install(TARGETS genvid_static EXPORT genvid-static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/genvid.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY assets/models DESTINATION ${CMAKE_INSTALL_DATADIR}/genvid)

set(GV_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/genvid)
install(EXPORT genvid-shared FILE genvid-shared-targets.cmake NAMESPACE genvid:: DESTINATION ${GV_CMAKE_DIR})
install(EXPORT genvid-static FILE genvid-static-targets.cmake NAMESPACE genvid:: DESTINATION ${GV_CMAKE_DIR})

# What a client of the archive has to find again: target name and pkg-config modules. genvid.pc names libraries and not
# modules (Requires.private), whose .pc files every client of the shared library would need as well.
set(GV_PKG_ENTRIES JANSSON:jansson UTF8PROC:libutf8proc PCRE2:libpcre2-8)
set(GV_PC_LIBS "-ljansson -lutf8proc -lpcre2-8 -lm -pthread")
if(GV_HAVE_FFMPEG)
  list(APPEND GV_PKG_ENTRIES LIBAV:libavformat:libavcodec:libavutil)
  string(APPEND GV_PC_LIBS " -lavformat -lavcodec -lavutil")
endif()
if(GV_HAVE_TURBOJPEG)
  list(APPEND GV_PKG_ENTRIES TURBOJPEG:libturbojpeg)
  string(APPEND GV_PC_LIBS " -lturbojpeg")
endif()

configure_package_config_file(cmake/genvid-config.cmake.in ${PROJECT_BINARY_DIR}/genvid-config.cmake
  INSTALL_DESTINATION ${GV_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/genvid-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/genvid-config.cmake ${PROJECT_BINARY_DIR}/genvid-config-version.cmake
  DESTINATION ${GV_CMAKE_DIR})

file(RELATIVE_PATH GV_PC_UP /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/genvid.pc.in ${PROJECT_BINARY_DIR}/genvid.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/genvid.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
