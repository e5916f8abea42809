import { defaultClientConditions, defineConfig } from "vite";

export default defineConfig({
  base: "./",
  // ONNX Runtime's wasm files stay files of their own: the policy of the page's server allows no others.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  worker: { format: "es" },
  build: { target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000 },
});
