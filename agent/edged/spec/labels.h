// Names of the labels and annotations on sandboxes and containers: those that kubelet writes and
// that crictl and monitoring tools read.
#pragma once

namespace edgemesh::edged {

inline constexpr const char* kPodNameLabel = "io.kubernetes.pod.name";
inline constexpr const char* kPodNamespaceLabel = "io.kubernetes.pod.namespace";
inline constexpr const char* kPodUidLabel = "io.kubernetes.pod.uid";
inline constexpr const char* kContainerNameLabel = "io.kubernetes.container.name";

inline constexpr const char* kContainerHashAnnotation = "io.kubernetes.container.hash";
inline constexpr const char* kRestartCountAnnotation = "io.kubernetes.container.restartCount";
inline constexpr const char* kMessagePathAnnotation =
    "io.kubernetes.container.terminationMessagePath";
inline constexpr const char* kMessagePolicyAnnotation =
    "io.kubernetes.container.terminationMessagePolicy";
inline constexpr const char* kPodGraceAnnotation = "io.kubernetes.pod.terminationGracePeriod";

}  // namespace edgemesh::edged
