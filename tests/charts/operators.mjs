// Validates objects of operators' kinds (JSON, on standard input) by the schemas of their custom resources.
import { PodMonitor, PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import fs from "node:fs";

const kinds = { PodMonitor, PrometheusRule, ServiceMonitor, ScaledObject, HTTPRoute };
for (const each of JSON.parse(fs.readFileSync(0, "utf8"))) {
  new kinds[each.kind](each).validate();
  console.log(`valid: ${each.kind} ${each.metadata.name}`);
}
