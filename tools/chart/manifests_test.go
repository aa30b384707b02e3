package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// manifests are the objects of a release; nil is one that it does not have.
type manifests struct {
	config     *core.ConfigMap
	account    *core.ServiceAccount
	deployment *apps.Deployment
	service    *core.Service
	install    *batch.Job
	monitor    *monitoring.ServiceMonitor
	rule       *monitoring.PrometheusRule
	budget     *policy.PodDisruptionBudget
}

// decode reads all documents into the types of Kubernetes. A field that a type does not have is an error, as it would be
// a warning at best in a cluster.
func decode(t *testing.T, text string) *manifests {
	t.Helper()
	var m manifests
	for document := range strings.SplitSeq(text, "---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		var kind meta.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		into := map[string]any{
			"v1 ConfigMap":       &m.config,
			"v1 ServiceAccount":  &m.account,
			"apps/v1 Deployment": &m.deployment,
			"v1 Service":         &m.service,
			"batch/v1 Job":       &m.install,
			"monitoring.coreos.com/v1 ServiceMonitor": &m.monitor,
			"monitoring.coreos.com/v1 PrometheusRule": &m.rule,
			"policy/v1 PodDisruptionBudget":           &m.budget,
		}[kind.APIVersion+" "+kind.Kind]
		if into == nil {
			t.Fatalf("an object that no test knows: %+v", kind)
		}
		if err := yaml.UnmarshalStrict([]byte(document), into); err != nil {
			t.Errorf("%s: %v\n%s", kind.Kind, err, document)
		}
	}
	if m.config == nil || m.deployment == nil || m.service == nil {
		t.Fatalf("ConfigMap, Deployment or Service is missing:\n%s", text)
	}
	return &m
}

func TestManifestsFitTogether(t *testing.T) {
	for name, values := range cases(t) {
		t.Run(name, func(t *testing.T) { checkManifests(t, decode(t, mustRender(t, values))) })
	}
}

func checkManifests(t *testing.T, m *manifests) {
	t.Helper()
	d := m.deployment
	pods := labels.Set(d.Spec.Template.Labels)
	selectors := map[string]*meta.LabelSelector{
		"Deployment": d.Spec.Selector, "Service": {MatchLabels: m.service.Spec.Selector},
		"topology spread constraint": d.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector,
	}
	if m.budget != nil {
		selectors["PodDisruptionBudget"] = m.budget.Spec.Selector
	}
	for of, selector := range selectors {
		s, err := meta.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(pods) {
			t.Errorf("the selector of the %s, %v, does not select the pods: %v", of, selector, err)
		}
		if m.install != nil && s.Matches(labels.Set(m.install.Spec.Template.Labels)) {
			t.Errorf("the selector of the %s takes the pod of the installation for a daemon", of)
		}
		if _, changes := selector.MatchLabels["app.kubernetes.io/version"]; changes {
			t.Errorf("the selector of the %s changes with a version", of)
		}
	}
	if m.monitor != nil {
		s, err := meta.LabelSelectorAsSelector(&m.monitor.Spec.Selector)
		if err != nil || !s.Matches(labels.Set(m.service.Labels)) || m.service.Labels[m.monitor.Spec.JobLabel] != "pgamqp" ||
			m.monitor.Spec.Endpoints[0].Port != m.service.Spec.Ports[0].Name {
			t.Errorf("the ServiceMonitor does not fit the Service: %+v", m.monitor.Spec)
		}
	}
	if m.rule != nil && (len(m.rule.Spec.Groups) == 0 || len(m.rule.Spec.Groups[0].Rules) < 20) {
		t.Errorf("the PrometheusRule has few rules: %+v", m.rule.Spec)
	}

	spec := d.Spec.Template.Spec
	daemon := spec.Containers[0]
	port := daemon.Ports[0]
	if port.ContainerPort != 9465 || env(daemon)["PGAMQP_LISTEN"] != ":9465" || m.service.Spec.Ports[0].TargetPort != intstr.FromString(port.Name) {
		t.Errorf("ports: %+v, %+v, %q", daemon.Ports, m.service.Spec.Ports, env(daemon)["PGAMQP_LISTEN"])
	}
	for path, probe := range map[string]*core.Probe{"/healthz": daemon.LivenessProbe, "/readyz": daemon.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port != intstr.FromString(port.Name) {
			t.Errorf("the probe of %s: %+v", path, probe)
		}
	}
	if spec.Volumes[0].ConfigMap.Name != m.config.Name || daemon.VolumeMounts[0].Name != spec.Volumes[0].Name ||
		m.config.Data[strings.TrimPrefix(env(daemon)["PGAMQP_CONFIG"], daemon.VolumeMounts[0].MountPath+"/")] == "" {
		t.Errorf("the daemon does not find its settings: %+v, %+v, %v", spec.Volumes, daemon.VolumeMounts, env(daemon))
	}
	// A pod is killed well after its daemon has given up to wait.
	var settings struct {
		ShutdownTimeout meta.Duration `json:"shutdown_timeout"`
	}
	if err := yaml.Unmarshal([]byte(m.config.Data["pgamqp.yaml"]), &settings); err != nil {
		t.Fatal(err)
	}
	if grace := float64(*spec.TerminationGracePeriodSeconds) - settings.ShutdownTimeout.Seconds(); grace < 10 || settings.ShutdownTimeout.Duration == 0 {
		t.Errorf("%d s of grace, and a shutdown_timeout of %s", *spec.TerminationGracePeriodSeconds, settings.ShutdownTimeout)
	}
	if m.account != nil && (spec.ServiceAccountName != m.account.Name || m.account.AutomountServiceAccountToken == nil || *m.account.AutomountServiceAccountToken) {
		t.Errorf("the account %q, and that of the pods, %q", m.account.Name, spec.ServiceAccountName)
	}
	checkPod(t, spec)

	if m.install != nil {
		checkInstall(t, m)
	}
	for _, name := range []string{d.Name, m.service.Name, m.config.Name} {
		if errs := validation.IsDNS1035Label(name); len(errs) > 0 {
			t.Errorf("name %q: %v", name, errs)
		}
	}
}

// checkInstall looks at the hook. Nothing of the chart is there when it runs for the first time. A daemon starts with its own
// schema version only, so no pod of the release could become ready before it, and helm --wait would not come to a later hook.
func checkInstall(t *testing.T, m *manifests) {
	t.Helper()
	job := m.install
	if hooks := job.Annotations["helm.sh/hook"]; hooks != "pre-install,pre-upgrade" {
		t.Errorf("the installation runs at %q", hooks)
	}
	if errs := validation.IsDNS1123Label(job.Name); len(errs) > 0 {
		t.Errorf("name %q: %v", job.Name, errs)
	}
	spec := job.Spec.Template.Spec
	if spec.ServiceAccountName != "" || slices.ContainsFunc(spec.Volumes, func(v core.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == m.config.Name }) {
		t.Errorf("the installation needs what is not there yet: %+v", spec)
	}
	// It makes the slot that the daemon reads.
	var settings struct{ Slot, Publication string }
	if err := yaml.Unmarshal([]byte(m.config.Data["pgamqp.yaml"]), &settings); err != nil {
		t.Fatal(err)
	}
	given := env(spec.Containers[0])
	if given["PGAMQP_SLOT"] != settings.Slot || given["PGAMQP_PUBLICATION"] != settings.Publication {
		t.Errorf("it installs %v for a daemon with %+v", given, settings)
	}
	checkPod(t, spec)
}

// checkPod is what Kubernetes calls the restricted profile, and what pgamqp needs of any pod.
func checkPod(t *testing.T, spec core.PodSpec) {
	t.Helper()
	isFalse := func(b *bool) bool { return b != nil && !*b }
	isTrue := func(b *bool) bool { return b != nil && *b }
	if !isFalse(spec.AutomountServiceAccountToken) {
		t.Error("a token of Kubernetes is mounted")
	}
	if !isFalse(spec.EnableServiceLinks) {
		t.Error("PGAMQP_PORT and others would be set, which pgamqp refuses")
	}
	if s := spec.SecurityContext; !isTrue(s.RunAsNonRoot) || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod may do too much: %+v", s)
	}
	for _, c := range spec.Containers {
		s := c.SecurityContext
		if !isFalse(s.AllowPrivilegeEscalation) || !isTrue(s.ReadOnlyRootFilesystem) || isTrue(s.Privileged) ||
			!slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("container %s may do too much: %+v", c.Name, s)
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("container %s has no bounds: %+v", c.Name, c.Resources)
		}
		for _, v := range c.Env {
			if v.Name == "PGAMQP_DATABASE_URL" && (v.Value != "" || v.ValueFrom == nil || v.ValueFrom.SecretKeyRef == nil) {
				t.Errorf("container %s has the password in its manifest", c.Name)
			}
		}
	}
}

// env returns the variables with a plain value.
func env(c core.Container) map[string]string {
	plain := make(map[string]string)
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			plain[v.Name] = v.Value
		}
	}
	return plain
}

func TestEveryPartIsInACase(t *testing.T) {
	seen := map[string]bool{}
	for _, values := range cases(t) {
		m := decode(t, mustRender(t, values))
		for part, there := range map[string]bool{
			"account": m.account != nil, "no account": m.account == nil, "install": m.install != nil, "no install": m.install == nil,
			"monitor": m.monitor != nil, "no monitor": m.monitor == nil, "rule": m.rule != nil, "no rule": m.rule == nil,
			"budget": m.budget != nil, "no budget": m.budget == nil,
		} {
			seen[part] = seen[part] || there
		}
	}
	for _, part := range slices.Sorted(maps.Keys(seen)) {
		if !seen[part] {
			t.Errorf("no case has: %s", part)
		}
	}
}
