{{- define "imagebot.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What finds the pods of this release; never changes, because a Deployment's selector cannot. */}}
{{- define "imagebot.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "imagebot.labels" -}}
{{ include "imagebot.selectorLabels" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | trunc 63 | quote }}
{{- with .Values.partOf }}
app.kubernetes.io/part-of: {{ . }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "imagebot.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "imagebot.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name must name the ServiceAccount that is there when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The tag stays beside a digest: without one `flux version` fails. */}}
{{- define "imagebot.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- with .Values.image.digest }}{{ printf "@%s" . }}{{ end -}}
{{- end -}}

{{/* Cluster-wide roles need names that no other release has. */}}
{{- define "imagebot.clusterName" -}}
{{- printf "%s-%s" (include "imagebot.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* Whether all namespaces are watched: "true" or empty. */}}
{{- define "imagebot.everywhere" -}}
{{- if and .Values.watchAllNamespaces (not .Values.rbac.strict) -}}true{{- end -}}
{{- end -}}

{{/*
The Deployments, as a JSON list: the main one, then one per shard. `lease` is the name that the service gives its lease: with the
first eight digits of the label selector's SHA-256, so that shards elect their leaders apart. `artifacts` is where others fetch the
artifacts of its sources: only the pod that leads has them, so where there may be several it is named itself, and not their Service.
*/}}
{{- define "imagebot.units" -}}
{{- $name := include "imagebot.fullname" . -}}
{{- $sharding := "sharding.fluxcd.io/key" -}}
{{- $own := .Values.watchLabelSelector -}}
{{- $units := list -}}
{{- $main := ternary (printf "!%s" $sharding) "" (gt (len .Values.shards) 0) -}}
{{- $shards := prepend .Values.shards (dict "selector" $main) -}}
{{- range $shard := $shards -}}
{{- $selector := hasKey $shard "key" | ternary (printf "%s=%s" $sharding (get $shard "key")) (get $shard "selector") -}}
{{- $selector = compact (list $own $selector) | join "," -}}
{{- $unitName := compact (list $name (get $shard "key")) | join "-" -}}
{{- $replicas := hasKey $shard "replicas" | ternary $shard.replicas $.Values.replicas -}}
{{- $service := printf "%s-artifacts.%s.svc.cluster.local." $unitName $.Release.Namespace -}}
{{- $unit := dict
  "name" $unitName
  "artifacts" (gt (int $replicas) 1 | ternary "$(POD_IP):9090" $service)
  "component" (hasKey $shard "key" | ternary (printf "shard-%s" (get $shard "key")) "main")
  "selector" $selector
  "lease" (compact (list "imagebot-leader-election" (empty $selector | ternary "" (sha256sum $selector | trunc 8))) | join "-")
  "replicas" $replicas
  "resources" (hasKey $shard "resources" | ternary $shard.resources $.Values.resources)
-}}
{{- $units = append $units $unit -}}
{{- end -}}
{{- toJson $units -}}
{{- end -}}

{{/* Which series are this release's. */}}
{{- define "imagebot.series" -}}
{{- default (printf "job=\"%s/%s\"" .Release.Namespace (include "imagebot.fullname" .)) .Values.prometheusRule.selector -}}
{{- end -}}

{{/* Refuses what a schema cannot: values that contradict one another. */}}
{{- define "imagebot.check" -}}
{{- $names := list -}}
{{- range fromJsonArray (include "imagebot.units" .) -}}
{{- if has .name $names -}}
{{- fail (printf "shards: the key of %s is there twice" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if and (gt (int .replicas) 1) (not $.Values.leaderElection.enabled) -}}
{{- fail (printf "leaderElection.enabled is false, and %s has %d replicas: all of them would write" .name (int .replicas)) -}}
{{- end -}}
{{- if and (gt (int .replicas) 1) $.Values.storage.persistence.enabled -}}
{{- fail (printf "storage.persistence.enabled needs replicas: 1, because pods cannot share the folder; %s has %d" .name (int .replicas)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.caBundle.configMap .Values.caBundle.secret -}}
{{- fail "caBundle: either configMap or secret, not both" -}}
{{- end -}}
{{- range .Values.extraArgs -}}
{{- if regexMatch "^--(no-)?(watch-all-namespaces|watch-label-selector|enable-leader-election|metrics-addr|health-addr|storage-path|storage-addr|storage-adv-addr|controllers|default-service-account)\\b" . -}}
{{- fail (printf "extraArgs: %s is set by the chart, which gives rights, ports and volumes to match; use its value" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
