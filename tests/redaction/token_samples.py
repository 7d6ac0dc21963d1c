"""One made-up token of each format, put together here so that no scanner takes it for a real one.

A template is literal text with ``{set:length}`` for what a service would draw at random; the text
holds the shortest value that the format allows. The draw is the same in every run.
"""

import random
import re
import string

_HEX = "0123456789abcdef"
_SETS = {
    "digit": string.digits,
    "hex": _HEX,
    "lower": string.digits + string.ascii_lowercase,
    "upper": string.digits + string.ascii_uppercase,
    "letters": string.ascii_letters,
    "62": string.digits + string.ascii_letters,
    "bech32": "023456789ACDEFGHJKLMNPQRSTUVWXYZ",
}
_KINDS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
_UUID = "{hex:8}-{hex:4}-4{hex:3}-a{hex:3}-{hex:12}"

# Name → template of the value, or of (what stands before it, the value).
TEMPLATES: dict[str, str | tuple[str, str]] = {
    "aws-access-key-id": "AKIA{upper:16}",
    "aws-bedrock": "ABSKQmVkcm9ja0FQSUtleS{62:60}",
    "aws-bedrock-short": "bedrock-api-key-{62:60}",
    "google-api-key": "AIza{62:35}",
    "google-oauth-access": "ya29.{62:20}",
    "google-oauth-refresh": "1//0{62:38}",
    "google-client-secret": "GOCSPX-{62:28}",
    "azure-storage-key": ("AccountName=a;AccountKey=", "{62:86}=="),
    "azure-sas-signature": ("https://a.blob.example.net/c?sv=2024-11-04&sig=", "{62:43}="),
    "azure-client-secret": "{62:3}8Q~{62:31}",
    "azure-devops": "{62:76}AZDO{62:4}",
    "azure-annotated-key": "{62:52}JQQJ9{62:27}",
    "alibaba-access-key-id": "LTAI{62:12}",
    "tencent-secret-id": "AKID{62:32}",
    "yandex-api-key": "AQVN{62:35}",
    "yandex-iam": "t1.{62:90}.{62:86}",
    "yandex-oauth": "y0_{62:55}",
    "digitalocean": "dop_v1_{hex:64}",
    "heroku": "HRKU-{62:36}",
    "fly-macaroon": "fm2_{62:80}",
    "fly-oauth": "fo1_{62:43}",
    "netlify": "nfp_{62:36}",
    "vercel": "vcp_{62:24}",
    "cloudflare": "cfut_{62:40}",
    "cloudflare-origin-ca": "v1.0-{hex:24}-{hex:146}",
    "render": "rnd_{62:28}",
    "tailscale": "tskey-auth-{62:12}-{62:16}",
    "github": "ghp_{62:36}",
    "github-fine-grained": "github_pat_{62:50}",
    "gitlab": "glpat-{62:20}",
    "gitlab-runner-registration": "GR1348941{62:20}",
    "atlassian": "ATATT3{62:60}",
    "bitbucket-app-password": "ATBB{62:32}",
    "trello": "ATTA{hex:64}",
    "npm": "npm_{62:36}",
    "pypi": "pypi-{62:50}",
    "rubygems": "rubygems_{hex:48}",
    "crates-io": "cio{62:32}",
    "docker-hub": "dckr_pat_{62:27}",
    "clojars": "CLOJARS_{hex:60}",
    "buildkite": "bkua_{hex:40}",
    "circleci": "CCIPAT_{62:22}_{hex:40}",
    "sonarqube": "sqp_{hex:40}",
    "pulumi": "pul-{hex:40}",
    "prefect": "pnu_{62:36}",
    "octopus": "API-{upper:26}",
    "harness": "pat.{62:22}.{62:24}.{62:20}",
    "infracost": "ico-{62:32}",
    "jfrog-api-key": "AKCp{62:69}",
    "jfrog-reference": "cmVmd{62:59}",
    "openshift": "sha256~{62:43}",
    "sourcegraph": "sgp_{hex:40}",
    "readme": "rdme_{lower:70}",
    "terraform-cloud": "{62:14}.atlasv1.{62:60}",
    "vault": "hvs.{62:24}",
    "doppler": "dp.pt.{62:40}",
    "1password-service-account": "ops_eyJ{62:120}",
    "age": "AGE-SECRET-KEY-1{bech32:58}",
    "okta": ("Authorization: SSWS ", "00{62:40}"),
    "grafana-service-account": "glsa_{62:32}_{hex:8}",
    "grafana-cloud": "glc_{62:32}",
    "grafana-before-2023": "eyJrIjoi{62:70}",
    "new-relic": "NRAK-{upper:27}",
    "new-relic-license": "{hex:36}NRAL",
    "sentry-organization": "sntrys_{62:80}",
    "sentry-user": "sntryu_{hex:64}",
    "posthog": "phx_{62:43}",
    "dynatrace": "dt0c01.{upper:24}.{upper:64}",
    "logfire": "pylf_v1_eu_{62:43}",
    "axiom": "xaat-" + _UUID,
    "honeycomb": "hcaik_{lower:58}",
    "launchdarkly-sdk": "sdk-" + _UUID,
    "openai": "sk-proj-{62:20}",
    "anthropic": "sk-ant-api03-{62:20}",
    "openrouter": "sk-or-v1-{hex:64}",
    "langfuse": "sk-lf-" + _UUID,
    "model-api": "sk-{hex:20}",
    "hugging-face": "hf_{letters:30}",
    "groq": "gsk_{62:40}",
    "replicate": "r8_{62:37}",
    "perplexity": "pplx-{62:40}",
    "xai": "xai-{62:70}",
    "fireworks": "fw_{62:22}",
    "cerebras": "csk-{lower:48}",
    "nvidia": "nvapi-{62:60}",
    "langsmith": "lsv2_pt_{hex:32}_{hex:10}",
    "pinecone": "pcsk_{62:6}_{62:50}",
    "tavily": "tvly-{62:32}",
    "firecrawl": "fc-{hex:32}",
    "jina": "jina_{hex:32}{62:28}",
    "llama-cloud": "llx-{62:48}",
    "e2b": "e2b_{hex:40}",
    "together": "tgp_v1_{62:40}",
    "context7": "ctx7sk-" + _UUID,
    "databricks": "dapi{hex:32}",
    "supabase": "sbp_{hex:40}",
    "planetscale": "pscale_tkn_{62:32}",
    "neon": "napi_{lower:60}",
    "neon-password": "npg_{62:12}",
    "contentful": "CFPAT-{62:43}",
    "linear": "lin_api_{62:40}",
    "notion": "ntn_{digit:11}{62:35}",
    "notion-before-2024": "secret_{62:43}",
    "airtable": "pat{62:14}.{hex:64}",
    "figma": "figd_{62:40}",
    "dropbox": "sl.{62:100}",
    "postman": "PMAK-{hex:24}-{hex:34}",
    "hubspot": "pat-na1-" + _UUID,
    "typeform": "tfp_{62:40}",
    "frame-io": "fio-u-{62:64}",
    "mapbox-secret": "sk.eyJ{62:40}.{62:20}",
    "maxmind": "{62:6}_{62:29}_mmk",
    "slack": "xoxb-{digit:10}",
    "slack-app": "xapp-1-{62:10}",
    "slack-workflow": "xwfp-{digit:10}",
    "slack-cookie": "xoxd-{62:20}",
    "slack-webhook": ("https://hooks.slack.com/services/", "T{upper:8}/B{upper:9}/{62:9}"),
    "teams-webhook": (
        "https://a.webhook.office.com/webhookb2/",
        f"{_UUID}@{_UUID}/IncomingWebhook/{{hex:32}}/{_UUID}",
    ),
    "discord-webhook": ("https://discord.com/api/webhooks/", "{digit:18}/{62:60}"),
    "telegram-url": ("https://api.telegram.org/bot", "{digit:9}:{62:35}"),
    "sendgrid": "SG.{62:22}.{62:43}",
    "twilio-api-key": "SK{hex:32}",
    "mailgun": "key-{hex:32}",
    "mailchimp": "{hex:32}-us9",
    "mandrill": "md-{62:22}",
    "brevo": "xkeysib-{hex:64}-{62:16}",
    "mailersend": "mlsn.{hex:64}",
    "resend": "re_{62:8}_{62:20}",
    "meta": "EAA{62:100}",
    "stripe": "sk_live_{62:16}",
    "stripe-webhook": "whsec_{62:24}",
    "square": "sq0atp-{62:22}",
    "braintree": "access_token$production${lower:16}${hex:32}",
    "shopify": "shpat_{hex:32}",
    "plaid": "access-sandbox-" + _UUID,
    "flutterwave": "FLWSECK-{hex:32}-X",
    "shippo": "shippo_live_{hex:40}",
    "easypost": "EZAK{62:54}",
    "lob": "test_{hex:35}",
    "duffel": "duffel_test_{62:43}",
    # Near a word:
    "aws-secret-access-key": ("aws_secret_access_key=", "{62:39}/"),
    "aws-session-token": ("AWS_SESSION_TOKEN=", "{62:100}"),
    "discord-bot": ("discord bot ", "MT{62:22}.{62:6}.{62:27}"),
    "telegram-bot": ("telegram bot ", "{digit:9}:{62:35}"),
    "datadog-api-key": ("DD_API_KEY=", "{hex:32}"),
    "datadog-application-key": ("DD_APPLICATION_KEY=", "{hex:40}"),
    "twilio-auth-token": ("twilio auth token ", "{hex:32}"),
    "assemblyai": ("ASSEMBLYAI_API_KEY=", "{hex:32}"),
    "azure-subscription-key": ("Ocp-Apim-Subscription-Key: ", "{hex:32}"),
    "wandb": ("WANDB_API_KEY=", "{hex:40}"),
    "deepgram": ("DEEPGRAM_API_KEY=", "{hex:40}"),
    "serper": ("SERPER_API_KEY=", "{hex:40}"),
    "serpapi": ("SERPAPI_API_KEY=", "{hex:64}"),
    "together-before-2025": ("TOGETHER_API_KEY=", "{hex:64}"),
    "linode": ("LINODE_TOKEN=", "{hex:64}"),
    "virustotal": ("virustotal api key ", "{hex:64}"),
    "asana": ("asana ", "1/{digit:16}:{hex:32}"),
    "launchdarkly-api": ("launchdarkly ", "api-" + _UUID),
    "snyk": ("SNYK_TOKEN=", _UUID),
    "postmark": ("X-Postmark-Server-Token: ", _UUID),
    "deepl": ("DEEPL_AUTH_KEY=", _UUID),
    "splunk-hec": ("SPLUNK_HEC_TOKEN=", _UUID),
    "ngrok": ("ngrok authtoken ", "{62:27}_{62:20}"),
    "cloudflare-before-2026": ("CLOUDFLARE_API_TOKEN=", "{62:40}"),
    "hetzner": ("HCLOUD_TOKEN=", "{62:64}"),
    "brave-search": ("X-Subscription-Token: ", "BSA{62:27}"),
    "cohere": ("COHERE_API_KEY=", "{62:40}"),
    "mistral": ("MISTRAL_API_KEY=", "{62:32}"),
}


def _fill(template: str, draw: random.Random) -> str:
    return re.sub(
        r"\{(\w+):(\d+)\}", lambda hole: _drawn(_SETS[hole[1]], int(hole[2]), draw), template
    )


def _drawn(alphabet: str, length: int, draw: random.Random) -> str:
    """Draw text that has of every kind of character, as nearly all that services draw has."""
    while True:
        text = "".join(draw.choices(alphabet, k=length))
        if length < 16 or all(
            set(kind) & set(text) for kind in _KINDS if set(kind) & set(alphabet)
        ):
            return text


def without_literals(template: str) -> str:
    """Return a template with every letter of its fixed part turned into another."""
    parts = re.split(r"(\{\w+:\d+\})", template)
    return "".join(p if p.startswith("{") else re.sub("[A-Za-z]", "q", p) for p in parts)


def fill(name: str, template: str) -> str:
    """Return a template with its holes filled, the same way for the same name."""
    return _fill(template, random.Random(name))


def _split(template: str | tuple[str, str]) -> tuple[str, str]:
    return ("", template) if isinstance(template, str) else template


TOKEN_VALUES = {name: fill(name, _split(template)[1]) for name, template in TEMPLATES.items()}
TOKEN_SAMPLES = {
    name: _split(template)[0] + TOKEN_VALUES[name] for name, template in TEMPLATES.items()
}
